package registry

import "time"

// Clock is what a registry waits with, and what it has others called with: neither keeps whoever calls the registry.
type Clock interface {
	// AfterFunc calls a function after a duration, unless stop is called before.
	AfterFunc(d time.Duration, f func()) (stop func())
	// Go calls a function soon.
	Go(f func())
}

// realClock is the time of the machine, and goroutines.
type realClock struct{}

func (realClock) AfterFunc(d time.Duration, f func()) (stop func()) {
	timer := time.AfterFunc(d, f)
	return func() { timer.Stop() }
}

func (realClock) Go(f func()) { go f() }
