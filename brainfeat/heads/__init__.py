"""What a head file holds: a classifier, its calibration, prediction sets and OOD detector."""
