package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// awaitDrained waits until a node has no container, and prints why containers remain. last is the node when its drain began. It
// fails when the node is undrained, lost or removed, and after timeout.
func (c *nodeCommands) awaitDrained(ctx context.Context, z *zone, last *apiv1.Node, timeout time.Duration) (*apiv1.Node, error) {
	name := last.GetName()
	limit, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	show := &drainProgress{lines: &lineProgress{out: c.err}, left: -1}
	known := false
	seen := func(response *apiv1.WatchResponse) error {
		for _, change := range response.GetChanges() {
			if change.GetRemoved() {
				return fmt.Errorf("%s was removed", name)
			}
			last = change.GetNode()
			show.update(last)
			known = true
			if err := drainEnd(last); err != nil {
				return err
			}
		}
		if response.GetCurrent() && !known {
			return fmt.Errorf("%s was removed", name)
		}
		return nil
	}
	// An index that is too old for every zone: the watch begins with what there is, and waits for a zone that does not answer.
	request := &apiv1.WatchRequest{Kinds: []apiv1.WatchRequest_Kind{apiv1.WatchRequest_NODE}, Names: []string{name}, Index: 1}
	err := followChanges(limit, z, request, seen)
	switch {
	case errors.Is(err, errDrained):
		return last, nil
	case limit.Err() == nil && status.Code(err) != codes.DeadlineExceeded:
		return nil, err
	case errors.Is(context.Cause(ctx), errInterrupted):
		return nil, fmt.Errorf("stopped waiting; %s is drained all the same, `mammoth node show %s` shows what is left", name, name)
	}
	return nil, fmt.Errorf("%s is not drained after %s: %s", name, short(timeout), leftOn(last))
}

// errDrained ends the wait for a node that is drained.
var errDrained = errors.New("the node is drained")

// drainEnd is why nobody need wait any longer for a node to be drained; nil if it may still come to that.
func drainEnd(node *apiv1.Node) error {
	name := node.GetName()
	switch node.GetState() {
	case apiv1.NodeState_DRAINED:
		return errDrained
	case apiv1.NodeState_READY, apiv1.NodeState_UNHEALTHY:
		return fmt.Errorf("%s is not being drained any more: it was undrained", name)
	case apiv1.NodeState_LOST:
		return fmt.Errorf("%s is lost, and its containers are unknown; if it is gone for good, run `mammoth node rm %s`", name, name)
	}
	return nil
}

// drainProgress prints a line when the number of remaining containers changes, and a line for each new reason.
type drainProgress struct {
	lines *lineProgress
	left  int
}

func (p *drainProgress) update(node *apiv1.Node) {
	if left := len(node.GetContainers()); left != p.left {
		p.left = left
		fmt.Fprintf(p.lines.out, "%s: %s left to move\n", node.GetName(), plural(left, "container"))
	}
	p.lines.reasonsFor(node.GetName(), node.GetWaiting())
}

// leftOn lists what remains on a node, and why.
func leftOn(node *apiv1.Node) string {
	text := plural(len(node.GetContainers()), "container") + " left"
	var reasons []string
	for _, w := range node.GetWaiting() {
		reasons = append(reasons, waitingNote(w))
	}
	return because(text, strings.Join(reasons, "; "))
}
