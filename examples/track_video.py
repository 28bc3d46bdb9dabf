"""Number the people and vehicles in a video and draw their ways, from results of `rdlite detect`.

pip install trackers
rdlite detect clip.mp4 -o out --conf 0.1 --classes person,bicycle,car,motorcycle,bus,truck
python examples/track_video.py clip.mp4 out/clip.jsonl tracked.mp4
"""

import sys
from typing import Any

import supervision as sv
from trackers import ByteTrackTracker

from rdlite import open_results

video, file, target = sys.argv[1:]
results = open_results(file)
info = sv.VideoInfo.from_video_path(video)
tracker = ByteTrackTracker(
    frame_rate=info.fps, track_activation_threshold=0.4, high_conf_det_threshold=0.3
)
draw = (
    sv.TraceAnnotator(color_lookup=sv.ColorLookup.TRACK, trace_length=60),
    sv.BoxAnnotator(color_lookup=sv.ColorLookup.TRACK),
)
label = sv.LabelAnnotator(color_lookup=sv.ColorLookup.TRACK)
seen: set[int] = set()
with sv.VideoSink(target, info) as sink:
    # One line for each frame: results of `--stride 1`, and none missing.
    for image, record in zip(sv.get_video_frames_generator(video), results, strict=True):
        tracked: Any = tracker.update(record.found.to_supervision())
        tracked = tracked[tracked.tracker_id >= 0]  # the others are not certain yet
        names = [f"{results.names[kind]} {number}" for *_, kind, number, _ in tracked]
        for annotator in draw:
            image = annotator.annotate(image, tracked)
        sink.write_frame(label.annotate(image, tracked, names))
        seen.update(tracked.tracker_id.tolist())
for sentence in results.warnings():  # damaged lines, missing frames
    print(sentence, file=sys.stderr)
print(f"{len(seen)} objects followed")
