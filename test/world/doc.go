// Package world runs a whole zone in one goroutine under a virtual clock: the ResourceManager, its nodes with their engines, the masters
// of apps, balancers, the network between them, and people who want things. Everything that is left to chance is drawn from one seed, so
// that a run can be repeated. Laws are watched all the time, as sentences.
//
// What decides is the program's own: resourcemanager/zone, nodemanager/node, driver.Master and appmaster.Session. The shells around them
// block and use real clocks, so the world has small ones of its own, with the same steps in the same order:
//
//   - manager is the loop of package resourcemanager: drain the inbox, step, decide, store, tell the registry, then nodes and masters, then
//     whoever asked. registry is companions/registry as far as balancers are waited for.
//   - nodeManager is the NodeManager's owner, its tracker and its service; engine is a runtime, and outlives it.
//   - master is appmaster.Client and the driver's goroutine.
//
// A container's probes, images and logs, what a balancer counts, and the bytes of the stores are not simulated.
package world
