// Saliency over a camera or a video file, with OpenCV: camera MODEL SOURCE [OVERLAY.mp4]
//
//     ./camera unisal-dhf1k.onnx 0                      a camera, in a window (Esc ends)
//     ./camera unisal-dhf1k.onnx in.mp4 overlay.mp4     a file, into a file
#include <cstdlib>
#include <deque>
#include <iostream>
#include <opencv2/highgui.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/videoio.hpp>
#include <string>

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

int run(const std::string &model_path, const std::string &source, const std::string &target) {
    const bool is_camera = source.find_first_not_of("0123456789") == std::string::npos;
    cv::VideoCapture capture;
    if (is_camera) {
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
    options.start = is_camera ? SAL_START_REPEAT : SAL_START_DEFAULT;
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
    while (!stopped && capture.read(frame)) {
        waiting.push_back(frame.clone());
        stream.push(sal::Frame(frame));
        show();
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
