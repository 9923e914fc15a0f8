// Saliency over a camera or a video file, with OpenCV: camera MODEL SOURCE [OVERLAY.mp4]
//
//     ./camera unisal-dhf1k.onnx 0                      a camera, in a window (Esc ends)
//     ./camera unisal-dhf1k.onnx rtsp://… overlay.mp4   a camera, into a file
//     ./camera unisal-dhf1k.onnx in.mp4 overlay.mp4     a file, into a file
//
// Of a file every frame is shown. Of a camera the newest is: those that come while the model is
// at work are dropped and counted, so that the picture never lags.
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <mutex>
#include <opencv2/highgui.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/videoio.hpp>
#include <string>
#include <thread>

#define SALSTREAM_OPENCV
#include <salstream/salstream.hpp>

namespace {

// The frame coloured by its saliency.
cv::Mat overlay(const cv::Mat &frame, const cv::Mat &map) {
    cv::Mat colours, weight, blended;
    cv::applyColorMap(map, colours, cv::COLORMAP_TURBO);
    cv::cvtColor(map, weight, cv::COLOR_GRAY2BGR);
    weight.convertTo(weight, CV_32F, 0.7 / 255);
    cv::Mat shown, below;
    colours.convertTo(colours, CV_32F);
    frame.convertTo(below, CV_32F);
    blended = colours.mul(weight) + below.mul(cv::Scalar::all(1) - weight);
    blended.convertTo(shown, CV_8U);
    return shown;
}

// Reads a camera on a thread of its own and keeps the newest frame.
class Newest {
  public:
    explicit Newest(cv::VideoCapture &capture) : thread_([this, &capture] { read(capture); }) {}
    ~Newest() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            ended_ = true;
        }
        thread_.join();
    }

    // Wait for a frame that was not taken yet. False at the end.
    bool take(cv::Mat &frame, std::int64_t &number) {
        std::unique_lock<std::mutex> lock(mutex_);
        came_.wait(lock, [&] { return ended_ || number_ > taken_; });
        if (number_ == taken_) return false;
        frame = frame_.clone();
        number = taken_ = number_;
        return true;
    }

  private:
    void read(cv::VideoCapture &capture) {
        cv::Mat next;
        for (bool more = true; more;) {
            more = capture.read(next);
            const std::lock_guard<std::mutex> lock(mutex_);
            if (more) {
                cv::swap(next, frame_);
                ++number_;
            }
            more = more && !ended_;
            ended_ = !more;
            came_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable came_;
    cv::Mat frame_;
    std::int64_t number_ = -1, taken_ = -1;  // of the newest frame, and of the one last taken
    bool ended_ = false;
    std::thread thread_;
};

int run(const std::string &model_path, const std::string &source, const std::string &target) {
    const bool is_number = source.find_first_not_of("0123456789") == std::string::npos;
    const bool is_live = is_number || source.rfind("/dev/", 0) == 0 ||
                         source.rfind("rtsp://", 0) == 0 || source.rfind("udp://", 0) == 0;
    cv::VideoCapture capture;
    if (is_number) {
        capture.open(std::stoi(source));
    } else {
        capture.open(source);
    }
    if (!capture.isOpened()) {
        std::cerr << source << " cannot be opened\n";
        return 1;
    }
    const double fps = capture.get(cv::CAP_PROP_FPS);

    sal::StreamOptions options;
    options.start = is_live ? SAL_START_REPEAT : SAL_START_DEFAULT;
    options.fps = fps > 0 ? fps : 0;
    options.map_type = SAL_UINT8;
    const sal::Model model = sal::Model::open(model_path);
    sal::Stream stream = model.stream(options);

    std::deque<cv::Mat> waiting;  // frames whose maps are still to come
    cv::VideoWriter writer;
    bool stopped = false;
    const auto show = [&] {
        while (const auto result = stream.next()) {
            const cv::Mat shown = overlay(waiting.front(), result->mat());
            waiting.pop_front();
            if (target.empty()) {
                cv::imshow("salstream", shown);
                stopped = stopped || cv::waitKey(1) == 27;
                continue;
            }
            if (!writer.isOpened() &&
                !writer.open(target, cv::VideoWriter::fourcc('m', 'p', '4', 'v'),
                             fps > 0 ? fps : 25, shown.size())) {
                throw std::runtime_error(target + " cannot be written");
            }
            writer.write(shown);
        }
    };
    cv::Mat frame;
    const auto push = [&](std::int64_t number) {
        waiting.push_back(frame.clone());
        sal::Frame described(frame);
        described.has_index = 1;
        described.index = number;
        stream.push(described);
        show();
    };
    if (is_live) {
        Newest newest(capture);
        std::int64_t number = 0, pushed = 0;
        for (; !stopped && newest.take(frame, number); ++pushed) push(number);
        std::cerr << number + 1 - pushed << " of " << number + 1 << " frames were dropped\n";
    } else {
        for (std::int64_t number = 0; !stopped && capture.read(frame); ++number) push(number);
    }
    stream.flush();
    show();
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 3 || argc > 4) {
        std::cerr << "usage: " << argv[0] << " MODEL.onnx CAMERA-OR-FILE [OVERLAY.mp4]\n";
        return 2;
    }
    try {
        return run(argv[1], argv[2], argc > 3 ? argv[3] : "");
    } catch (const std::exception &error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
