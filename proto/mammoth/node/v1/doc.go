// Package nodev1 is the protocol with which containers are started and watched on a node; node.proto says who calls whom.
package nodev1
