package main

import "fmt"

// shape is one cell of the matrix: asks are containers in all, dealt to the apps in turn.
type shape struct{ nodes, apps, asks int }

func (s shape) String() string {
	return fmt.Sprintf("%d nodes, %d apps, %d asks", s.nodes, s.apps, s.asks)
}

// size is what a node has or a container asks for.
type size struct {
	// cpu is in millicores, memory in bytes.
	cpu, memory int64
}

// workload is what every contender is given at a shape.
type workload struct {
	shape
	nodeSizes []size
	// appSizes has the size of each app's containers: SwarmKit's tasks of one service are alike, so here all are.
	appSizes []size
}

// newWorkload has nodes of three sizes. Apps come in pairs whose sizes add up to twice the mean, so that at every
// shape all asks together fill about three quarters of the nodes (or, where they are few, are a tenth of a small
// node each) and all of them can be granted.
func newWorkload(s shape) workload {
	w := workload{shape: s, nodeSizes: make([]size, s.nodes), appSizes: make([]size, s.apps)}
	for i := range w.nodeSizes {
		times := int64(1 + i%3)
		w.nodeSizes[i] = size{cpu: 16_000 * times, memory: 64 << 30 * times}
	}
	mean := min(float64(s.nodes)*32_000*0.75/float64(s.asks), 1_600)
	for i := range w.appSizes {
		pair := i / 2
		cpu, memory := 1+(5+7*pair)%20, 1+pair%4
		if i%2 == 1 {
			cpu, memory = 21-cpu, 5-memory
		}
		w.appSizes[i] = size{
			cpu:    max(int64(mean*float64(cpu)/10), 1),
			memory: max(int64(mean*float64(memory)/2.5*float64(4<<20)), 1),
		}
	}
	return w
}

// first is the same with fewer asks.
func (w workload) first(asks int) workload {
	w.asks = asks
	return w
}

// app is whose the i-th ask is.
func (w workload) app(i int) int { return i % w.apps }

// placement is one grant: a container of an app on a node.
type placement struct{ App, Node int }

// check reports the first node that holds more than it has: a scheduler that over-commits is not to be compared with.
func (w workload) check(placed []placement) error {
	held := make([]size, len(w.nodeSizes))
	for _, p := range placed {
		held[p.Node].cpu += w.appSizes[p.App].cpu
		held[p.Node].memory += w.appSizes[p.App].memory
		if h, n := held[p.Node], w.nodeSizes[p.Node]; h.cpu > n.cpu || h.memory > n.memory {
			return fmt.Errorf("node %d has %d millicores and %d bytes of memory, and is given %d and %d", p.Node, n.cpu, n.memory, h.cpu, h.memory)
		}
	}
	return nil
}
