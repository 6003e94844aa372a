package process

import "time"

// SetStateDirGrace sets how long the processes may take to end when their state directory is removed.
func (r *Runtime) SetStateDirGrace(grace time.Duration) { r.stateDirGrace = grace }
