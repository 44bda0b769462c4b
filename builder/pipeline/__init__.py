"""The only place that knows the order: request, pin, host, lock, inputs, plan; then workspace, build, pack, publish."""
