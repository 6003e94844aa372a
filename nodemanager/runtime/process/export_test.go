package process

import "time"

// SetPlaceGrace gives what is left in a place so much time to end with it.
func (r *Runtime) SetPlaceGrace(grace time.Duration) { r.placeGrace = grace }
