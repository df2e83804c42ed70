"""Reading the benchmark results, traces and logs that people have; one file a format.

`inspect` shows what is in a file or folder, `read_results` keeps what a profile can be fitted on, `to_measurements`
turns that into rows with the columns of the measurement table.
"""

from factory_sim.calibration.importers.inspect import inspect, read_results
from factory_sim.calibration.importers.measurements import to_measurements
from factory_sim.calibration.importers.point import FIGURES, Inspection, Point
from factory_sim.calibration.importers.show import as_json, as_text

__all__ = ["FIGURES", "Inspection", "Point", "as_json", "as_text", "inspect", "read_results", "to_measurements"]
