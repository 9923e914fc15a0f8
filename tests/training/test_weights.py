from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import platformdirs
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.training import cli, weights
from salstream.training.weights import PublishedWeights, WheelSource, cache_folder, find, pull

CONTENT = hashlib.shake_256(b"made-up weights").digest(300_000)
MEMBER = "littlewheel/weights/little.pth"


@dataclass
class Site:
    """A web server on this machine, and what it was asked for."""

    content: bytes = CONTENT
    status: int = 200
    ranges: bool = True
    # Bytes of the body after which the connection ends; None for all of it.
    cut_after: int | None = None
    stall: threading.Event | None = None
    delay_s: float = 0.0
    content_range: str | None = None
    content_length: bool = True
    seen: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers["Range"]
        self.seen.append(asked)
        if self.status != 200:
            request.send_error(self.status)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        size = len(self.content)
        if asked and self.ranges and start >= size:
            request.send_error(416)
            return
        if asked and self.ranges:
            request.send_response(206)
            request.send_header(
                "Content-Range", self.content_range or f"bytes {start}-{size - 1}/{size}"
            )
        else:
            start = 0
            request.send_response(200)
        body = self.content[start:]
        if self.content_length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        time.sleep(self.delay_s)
        request.wfile.write(body[: self.cut_after])
        request.wfile.flush()
        if self.stall is not None:
            self.stall.wait(timeout=30)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_address[1]}/little.pth"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield site
        if site.stall is not None:
            site.stall.set()
        server.shutdown()
        thread.join(timeout=10)


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache of its own, and no way to the network."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SALSTREAM_CACHE", str(folder))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    (tmp_path / "wheels").mkdir()
    return folder


@pytest.fixture
def little(site: Site, monkeypatch: pytest.MonkeyPatch) -> PublishedWeights:
    """Return a made-up entry of the registry that the local server has."""
    return publish(monkeypatch, site.url)


def publish(
    monkeypatch: pytest.MonkeyPatch, *urls: str, wheel: WheelSource | None = None
) -> PublishedWeights:
    entry = PublishedWeights(
        name="little",
        model="made-up",
        file_name="little.pth",
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        license="MIT",
        license_note="Made up for a test.",
        urls=urls,
        wheel=wheel,
        citation="none",
    )
    monkeypatch.setitem(weights.REGISTRY, "little", entry)
    return entry


def unreachable_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/little.pth"


def make_wheel(folder: Path, content: bytes = CONTENT) -> WheelSource:
    path = folder / "littlewheel-1.0-py3-none-any.whl"
    info = "littlewheel-1.0.dist-info"
    # No Python meets the requirement: the wheel is only unpacked, so it must not matter.
    metadata = "Metadata-Version: 2.1\nName: littlewheel\nVersion: 1.0\nRequires-Python: <3\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return WheelSource(package="littlewheel", version="1.0", member=MEMBER, sha256=sha256)


def place() -> Path:
    return cache_folder() / "little" / "little.pth"


def part() -> Path:
    return cache_folder() / "little" / "little.pth.part"


def leave_part(content: bytes) -> None:
    part().parent.mkdir(parents=True, exist_ok=True)
    part().write_bytes(content)


def refusal(error: pytest.ExceptionInfo[SalstreamError]) -> str:
    """Return the message after checking that it is one sentence for a user."""
    message = str(error.value)
    assert message
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def pull_elsewhere(entry: PublishedWeights, before: str = "") -> subprocess.Popen[str]:
    """Pull in a process of its own, after the statements ``before``."""
    script = f"""
        import json, sys
        from salstream.runtime.errors import SalstreamError
        from salstream.training import weights
        entry = json.loads(sys.argv[1])
        entry["urls"] = tuple(entry["urls"])
        weights.REGISTRY["little"] = weights.PublishedWeights(**entry)
        {before}
        try:
            print(weights.pull("little"))
        except SalstreamError as error:
            sys.exit(str(error))
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), json.dumps(asdict(entry))],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# From the authors' address


def test_pull_downloads_once(site: Site, little: PublishedWeights) -> None:
    assert find("little") is None
    steps: list[tuple[int, int]] = []
    path = pull("little", progress=lambda done, total: steps.append((done, total)))

    assert path == find("little") == place()
    assert path.read_bytes() == CONTENT
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert steps == sorted(steps)
    assert len(steps) > 2
    assert not part().exists()

    assert pull("little") == path
    assert site.seen == [None]


def test_pull_into_a_given_folder(little: PublishedWeights, tmp_path: Path) -> None:
    path = pull("little", cache=tmp_path / "mine")
    assert path == find("little", cache=tmp_path / "mine")
    assert path.is_relative_to(tmp_path / "mine")
    assert find("little") is None


def test_a_read_only_cache_is_enough_for_what_is_there(
    little: PublishedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pull("little")
    lock = path.with_name("little.pth.lock")
    lock.unlink()
    # As root no folder is read-only, so what would write is taken away instead.
    monkeypatch.setattr(Path, "mkdir", None)
    assert pull("little") == path
    assert not lock.exists()


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(there=st.integers(1, len(CONTENT) - 1))
def test_pull_goes_on_where_a_part_ends(site: Site, little: PublishedWeights, there: int) -> None:
    site.seen.clear()
    place().unlink(missing_ok=True)
    leave_part(CONTENT[:there])
    steps: list[int] = []
    path = pull("little", progress=lambda done, _: steps.append(done))

    assert site.seen == [f"bytes={there}-"]
    assert path.read_bytes() == CONTENT
    assert all(there < step for step in steps)


def test_a_whole_part_needs_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, unreachable_url())
    leave_part(CONTENT)
    assert pull("little").read_bytes() == CONTENT
    assert not part().exists()


def test_pull_starts_again_where_the_server_ignores_ranges(
    site: Site, little: PublishedWeights
) -> None:
    site.ranges = False
    leave_part(CONTENT[:1000])
    assert pull("little").read_bytes() == CONTENT
    assert site.seen == ["bytes=1000-"]


@pytest.mark.parametrize("wrong", ["bytes 0-299999/300000", "bytes 1000-1999/300000", "nonsense"])
def test_pull_starts_again_where_the_server_gives_another_range(
    site: Site, little: PublishedWeights, wrong: str
) -> None:
    site.content_range = wrong
    leave_part(CONTENT[:1000])
    assert pull("little").read_bytes() == CONTENT
    assert site.seen == ["bytes=1000-", None]


def test_pull_starts_again_after_416(
    site: Site, little: PublishedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server's file is shorter than the part, and has grown when it is asked again.
    answer = site.answer
    site.content = CONTENT[:500]

    def grow(request: BaseHTTPRequestHandler) -> None:
        answer(request)
        site.content = CONTENT

    monkeypatch.setattr(site, "answer", grow)
    leave_part(CONTENT[:1000])
    assert pull("little").read_bytes() == CONTENT
    assert site.seen == ["bytes=1000-", None]


@pytest.mark.parametrize("there", [1000, len(CONTENT), len(CONTENT) + 1])
def test_a_wrong_part_is_deleted_and_said(
    site: Site, little: PublishedWeights, caplog: pytest.LogCaptureFixture, there: int
) -> None:
    leave_part(bytes(there))
    assert pull("little").read_bytes() == CONTENT
    assert site.seen[-1] is None
    assert [record.message for record in caplog.records] == [
        f"{part()} had another sha256 than published and was deleted"
    ]


def test_a_wrong_file_in_the_cache_is_deleted_and_said(
    site: Site, little: PublishedWeights, caplog: pytest.LogCaptureFixture
) -> None:
    pull("little").write_bytes(CONTENT[:-1] + b"?")
    assert find("little") is None
    assert pull("little").read_bytes() == CONTENT
    assert "was deleted" in caplog.text

    place().write_bytes(b"?")
    site.status = 404
    with pytest.raises(SalstreamError):
        pull("little")
    assert not place().exists()


def test_a_cut_connection_is_taken_up_again(site: Site, little: PublishedWeights) -> None:
    site.cut_after = 150_000
    assert pull("little").read_bytes() == CONTENT
    assert site.seen == [None, "bytes=150000-"]


def test_a_connection_that_keeps_breaking_leaves_a_part(
    site: Site, little: PublishedWeights
) -> None:
    site.cut_after = 70_000
    with pytest.raises(SalstreamError) as error:
        pull("little")
    assert "broke off after 210000 of 300000 bytes" in refusal(error)
    assert site.seen == [None, "bytes=70000-", "bytes=140000-"]
    assert part().read_bytes() == CONTENT[:210_000]
    assert pull("little").read_bytes() == CONTENT


def test_a_connection_that_gives_nothing_is_not_tried_again(
    site: Site, little: PublishedWeights
) -> None:
    site.cut_after = 0
    with pytest.raises(SalstreamError, match="broke off after 0 of 300000 bytes"):
        pull("little")
    assert site.seen == [None]


def test_a_server_that_falls_silent_counts_as_a_cut(
    site: Site, little: PublishedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_TIMEOUT_S", 0.2)
    site.cut_after = 0
    site.stall = threading.Event()
    with pytest.raises(SalstreamError, match="broke off after 0 of 300000 bytes"):
        pull("little")


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_refuses_is_named(site: Site, little: PublishedWeights, status: int) -> None:
    site.status = status
    leave_part(CONTENT[:1000])
    with pytest.raises(SalstreamError) as error:
        pull("little")
    message = refusal(error)
    assert f"{site.url} answers {status}" in message
    assert str(place()) in message
    assert part().read_bytes() == CONTENT[:1000]


def test_wrong_bytes_are_deleted(site: Site, little: PublishedWeights) -> None:
    site.content = bytes(len(CONTENT))
    with pytest.raises(SalstreamError) as error:
        pull("little")
    assert "another sha256 than published, which was deleted" in refusal(error)
    assert not place().exists()
    assert not part().exists()
    assert site.seen == [None]


def test_a_file_of_another_length_is_not_downloaded(site: Site, little: PublishedWeights) -> None:
    site.content = b"<html>Please sign in</html>"
    with pytest.raises(SalstreamError, match="offers 27 bytes, expected 300000"):
        pull("little")
    assert not part().exists()


def test_a_file_that_does_not_end_is_stopped(site: Site, little: PublishedWeights) -> None:
    site.content = CONTENT * 40
    site.content_length = False
    steps: list[int] = []
    with pytest.raises(SalstreamError, match="another sha256"):
        pull("little", progress=lambda done, _: steps.append(done))
    assert len(steps) < 10
    assert not part().exists()


def test_the_second_address_helps(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, unreachable_url(), site.url)
    assert pull("little").read_bytes() == CONTENT


def test_an_interrupted_pull_leaves_its_part(site: Site, little: PublishedWeights) -> None:
    def interrupt(done: int, _: int) -> None:
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("little", progress=interrupt)
    there = part().stat().st_size
    assert there > 100_000
    assert pull("little").read_bytes() == CONTENT
    assert site.seen == [None, f"bytes={there}-"]


# Out of a wheel


@pytest.mark.parametrize("no_binary", ["", ":all:"])
def test_pull_falls_back_to_the_wheel(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    no_binary: str,
) -> None:
    url = unreachable_url()
    publish(monkeypatch, url, wheel=make_wheel(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_NO_BINARY", no_binary)
    leave_part(CONTENT[:1000])
    steps: list[tuple[int, int]] = []
    path = pull("little", progress=lambda done, total: steps.append((done, total)))

    assert path.read_bytes() == CONTENT
    assert steps == [(len(CONTENT), len(CONTENT))]
    assert url in caplog.text
    assert "littlewheel==1.0" in caplog.text
    left = {item.name for item in path.parent.iterdir()}
    assert left == {"little.pth", "little.pth.lock"}


def test_a_source_distribution_is_never_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tarfile

    wheel = make_wheel(tmp_path / "wheels")
    (tmp_path / "wheels" / "littlewheel-1.0-py3-none-any.whl").unlink()
    source = tmp_path / "littlewheel-1.0"
    source.mkdir()
    (source / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: littlewheel\nVersion: 1.0\n")
    with tarfile.open(tmp_path / "wheels" / "littlewheel-1.0.tar.gz", "w:gz") as archive:
        archive.add(source, "littlewheel-1.0")
    publish(monkeypatch, wheel=wheel)
    with pytest.raises(SalstreamError, match="No matching distribution"):
        pull("little")
    assert not (tmp_path / "ran").exists()


def test_a_pip_module_in_the_working_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, wheel=make_wheel(tmp_path / "wheels"))
    (tmp_path / "pip.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    assert pull("little").read_bytes() == CONTENT
    assert not (tmp_path / "ran").exists()


def test_what_a_killed_process_left_does_not_disturb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, wheel=make_wheel(tmp_path / "wheels"))
    left = place().with_name("little.pth.wheel")
    left.mkdir(parents=True)
    (left / "a-half-1.0-py3-none-any.whl").write_bytes(b"half")
    assert pull("little").read_bytes() == CONTENT
    assert not left.exists()


def test_a_wheel_that_was_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = make_wheel(tmp_path / "wheels")
    make_wheel(tmp_path / "wheels", content=b"changed")
    publish(monkeypatch, wheel=published)
    with pytest.raises(SalstreamError) as error:
        pull("little")
    assert "littlewheel==1.0 has another sha256 than published" in refusal(error)
    assert find("little") is None


def test_a_wheel_with_another_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, wheel=make_wheel(tmp_path / "wheels", content=b"another"))
    with pytest.raises(SalstreamError) as error:
        pull("little")
    assert "holds a file with another sha256" in refusal(error)
    assert find("little") is None
    assert not place().exists()


def test_both_reasons_are_said_without_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = unreachable_url()
    publish(monkeypatch, url, wheel=make_wheel(tmp_path))
    monkeypatch.delenv("PIP_NO_INDEX")
    mirror = unreachable_url().replace("http://", "http://user:secret@")
    monkeypatch.setenv("PIP_INDEX_URL", mirror.replace("/little.pth", "/simple"))
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(SalstreamError) as error:
        pull("little")
    message = refusal(error)
    assert f"{url} cannot be reached (Connection refused)" in message
    assert "the wheel littlewheel==1.0 could not be downloaded by pip (No matching" in message
    assert str(place()) in message
    assert "secret" not in message
    assert error.value.exit_code == 1


def test_pip_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=False, symlinks=os.name != "nt")
    python = next(path for path in bare.glob("*/python*") if path.stem == "python")
    monkeypatch.setattr(sys, "executable", str(python))
    publish(monkeypatch, wheel=make_wheel(tmp_path / "wheels"))
    with pytest.raises(SalstreamError) as error:
        pull("little")
    assert "pip, which is not installed in this Python" in refusal(error)


# Several processes, and full or forbidden disks


def test_processes_at_once_download_once(site: Site, little: PublishedWeights) -> None:
    site.delay_s = 0.5
    processes = [pull_elsewhere(little) for _ in range(4)]
    answers = [process.communicate(timeout=60) for process in processes]
    assert answers == [(f"{place()}\n", "")] * 4
    assert place().read_bytes() == CONTENT
    assert site.seen == [None]


def test_pull_goes_on_after_a_killed_process(site: Site, little: PublishedWeights) -> None:
    site.cut_after = 200_000
    site.stall = threading.Event()
    process = pull_elsewhere(little)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (part().exists() and part().stat().st_size):
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=30)
    there = part().stat().st_size
    assert 0 < there <= 200_000

    site.stall.set()
    site.cut_after = None
    assert pull("little").read_bytes() == CONTENT
    assert site.seen == [None, f"bytes={there}-"]


def test_a_cache_that_cannot_be_made_is_named(
    site: Site, little: PublishedWeights, surroundings: Path
) -> None:
    surroundings.write_text("a file in the folder's place")
    assert find("little") is None
    with pytest.raises(SalstreamError) as error:
        pull("little")
    message = refusal(error)
    assert f"cannot be stored in {place().parent} (Not a directory)" in message
    assert "SALSTREAM_CACHE" in message
    assert site.seen == []


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_cache_that_cannot_be_written_is_named(
    little: PublishedWeights, surroundings: Path
) -> None:
    surroundings.mkdir()
    surroundings.chmod(0o500)
    with pytest.raises(SalstreamError) as error:
        pull("little")
    assert "(Permission denied)" in refusal(error)


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
def test_a_full_disk_is_one_sentence(little: PublishedWeights) -> None:
    # A limit on the size of files fails in the same place as a full disk: a write half way.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    process = pull_elsewhere(little, before=limit)
    out, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert out == ""
    assert said.startswith(f"the weights 'little' cannot be stored in {place().parent} (File too")
    assert said.count("\n") == 1


# The registry and its cache


def test_an_unknown_name_lists_those_that_exist() -> None:
    for ask in (pull, find):
        with pytest.raises(UsageError) as error:
            ask("unisel")
        assert refusal(error).endswith("choose one of: unisal, unisal-mit1003")


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache" / "weights"
    monkeypatch.setenv("SALSTREAM_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere" / "weights"
    monkeypatch.delenv("SALSTREAM_CACHE")
    assert cache_folder() == Path(platformdirs.user_cache_dir("salstream")) / "weights"


def test_published_entries_are_complete() -> None:
    places = {(entry.name, entry.file_name) for entry in weights.REGISTRY.values()}
    assert len(places) == len(weights.REGISTRY) >= 2
    for name, entry in weights.REGISTRY.items():
        assert entry.name == name
        assert entry.urls or entry.wheel
        assert all(url.startswith("https://") for url in entry.urls)
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.license_note.endswith(".")


def test_neither_module_imports_torch() -> None:
    code = (
        "import sys, salstream.training.weights, salstream.training.cli; "
        "sys.exit('torch' in sys.modules)"
    )
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "from_wheel"), [("unisal", False), ("unisal", True), ("unisal-mit1003", True)]
)
def test_the_real_weights(name: str, from_wheel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from salstream.training.checkpoints import load_state_dict

    for variable in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(variable)
    entry = weights.REGISTRY[name]
    if from_wheel:
        monkeypatch.setitem(weights.REGISTRY, name, replace(entry, urls=()))
    try:
        path = pull(name)
    except SalstreamError as error:
        if "sha256" in str(error):
            raise
        pytest.skip(f"no source can be reached: {error}")
    content = path.read_bytes()
    assert len(content) == entry.size_bytes
    published = {
        "unisal": "4a9157411f1741d588b15670d15295e998805648b8b6348599fe447298338481",
        "unisal-mit1003": "a6de8ea27d812cfc3fbc2b8cab59862a8e48aaf4d512e670468d3b6972a81262",
    }
    assert hashlib.sha256(content).hexdigest() == published[name]
    state = load_state_dict(path)
    assert len(state) == 835
    assert state["smoothing_salicon.weight"].shape == torch.Size((1, 1, 41, 41))


# The command line


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.callback()(lambda: None)
    cli.register(app)
    return app


def test_cli_pull_prints_the_path(app: typer.Typer, little: PublishedWeights) -> None:
    result = CliRunner().invoke(app, ["weights", "pull", "little"])
    assert result.exit_code == 0
    assert result.stdout == f"{place()}\n"
    assert result.stderr == "Made up for a test.\n"
    assert place().read_bytes() == CONTENT


def test_cli_pull_as_json(app: typer.Typer, little: PublishedWeights) -> None:
    result = CliRunner().invoke(app, ["weights", "pull", "little", "--json"])
    assert json.loads(result.stdout) == {
        "name": "little",
        "path": str(place()),
        "size_bytes": 300_000,
        "sha256": little.sha256,
        "license": "MIT",
        "license_note": "Made up for a test.",
    }
    assert result.stderr == "Made up for a test.\n"


def test_cli_pull_shows_progress_on_a_terminal(
    app: typer.Typer, little: PublishedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes any stream for a terminal
    result = CliRunner().invoke(app, ["weights", "pull", "little"])
    assert result.stdout == f"{place()}\n"
    assert "300.0/300.0 kB" in result.stderr


def test_cli_leaves_errors_to_the_main_program(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["weights", "pull", "unisel"])
    assert isinstance(result.exception, UsageError)


def test_cli_list(
    app: typer.Typer, little: PublishedWeights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("SALSTREAM_CACHE", str(tmp_path / "[red]cache"))  # no markup for rich

    def row() -> list[str]:
        result = CliRunner().invoke(app, ["weights", "list"])
        assert result.exit_code == 0
        assert "unisal-mit1003" in result.stdout
        line = next(line for line in result.stdout.splitlines() if "made-up" in line)
        return line.replace("│", " ").split()

    assert row() == ["little", "made-up", "MIT", "0.3", "MB", "-"]
    path = pull("little")
    assert row() == ["little", "made-up", "MIT", "0.3", "MB", str(path)]


def test_cli_list_as_json(app: typer.Typer, little: PublishedWeights) -> None:
    pull("little")
    result = CliRunner().invoke(app, ["weights", "list", "--json"])
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert set(rows) == set(weights.REGISTRY)
    assert rows["little"]["path"] == str(place())
    assert rows["unisal"]["path"] is None
    assert rows["unisal"]["license"] == "Apache-2.0"


@pytest.mark.parametrize("command", ["list", "pull"])
def test_cli_help_has_an_example(app: typer.Typer, command: str) -> None:
    result = CliRunner().invoke(app, ["weights", command, "--help"])
    assert result.exit_code == 0
    assert f"Example: salstream weights {command}" in result.stdout
    assert "--json" in result.stdout


def test_the_library_leaves_logging_to_the_user() -> None:
    assert logging.getLogger("salstream").handlers == []
