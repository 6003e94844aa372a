package main

import (
	"sync"
	"time"
)

// silence is how long a command says nothing while it works.
const silence = 5 * time.Second

// while has say called whenever a while has passed, until the function that it gives is called, which waits for the last call.
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
