package main

import (
	"sync"
	"time"
)

// silence is the time after which a command that works prints that it still does.
const silence = 5 * time.Second

// while calls say every d until stop is called. stop waits for a call of say that is in progress.
func while(d time.Duration, say func()) (stop func()) {
	ended := make(chan struct{})
	var saying sync.WaitGroup
	saying.Go(func() {
		again := time.NewTicker(d)
		defer again.Stop()
		for {
			select {
			case <-ended:
				return
			case <-again.C:
				say()
			}
		}
	})
	return func() {
		close(ended)
		saying.Wait()
	}
}
