package main

import (
	"testing"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

func TestANodeIsRemovedWithItsContainersIfItHasSome(t *testing.T) {
	for count, want := range []string{"node-1: removed", "node-1: removed, and 1 container with it", "node-1: removed, and 2 containers with it"} {
		node := &apiv1.Node{Name: "node-1"}
		for range count {
			node.Containers = append(node.Containers, &apiv1.NodeContainer{})
		}
		if got := removedText(node); got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
}
