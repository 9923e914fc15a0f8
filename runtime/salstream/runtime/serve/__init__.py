"""A page that shows what the cameras see, and what other programs ask for beside it.

    from salstream.runtime.serve import serve

    server = serve(cameras, "127.0.0.1:8080")
    ...
    server.close()

`server` opens the address and ends the thread, `guard` says who may come in, `app` answers,
`broadcast` makes each picture once for all who watch, `pictures` draws it, `metrics` counts. What
the browser gets lies in `page/`. It needs the extra `serve`.
"""

from salstream.runtime.serve.server import Server, serve

__all__ = ["Server", "serve"]
