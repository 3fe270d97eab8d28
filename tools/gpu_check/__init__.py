"""The parts of `tools/gpu_check.sh`: each is a module with its own process, time limit and JSON file."""
