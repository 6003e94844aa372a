// Package endpoints measures what clients of an app notice while everything behind it is moved: whole zones of the built
// binary, real containers, nginx and ZooKeeper. Run it with `make bench-endpoints`; what the registry and the balancers
// do by themselves is measured in test/integration/endpoints.
package endpoints
