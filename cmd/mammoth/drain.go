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

// drainInterval is the time between two requests for the node's state.
const drainInterval = 500 * time.Millisecond

// awaitDrained waits until a node has no container, and prints why containers remain. last is the node when its drain began. It
// fails when the node is undrained, lost or removed, and after timeout.
func (c *cli) awaitDrained(ctx context.Context, z *zone, last *apiv1.Node, timeout time.Duration) (*apiv1.Node, error) {
	name := last.GetName()
	limit, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	look := time.NewTicker(drainInterval)
	defer look.Stop()
	show := &drainProgress{lines: &lineProgress{out: c.err}, left: -1}
	for {
		node, err := z.nodes.GetNode(limit, &apiv1.GetNodeRequest{Name: name})
		switch {
		case err == nil:
			last = node
			show.update(node)
		case limit.Err() != nil || status.Code(err) == codes.DeadlineExceeded:
			// The timeout is checked below.
		case status.Code(err) == codes.Unavailable:
			// It waits for a zone that does not answer.
		default:
			return nil, err
		}
		switch last.GetState() {
		case apiv1.NodeState_DRAINED:
			return last, nil
		case apiv1.NodeState_READY, apiv1.NodeState_UNHEALTHY:
			return nil, fmt.Errorf("%s is not being drained any more: it was undrained", name)
		case apiv1.NodeState_LOST:
			return nil, fmt.Errorf("%s is lost, and its containers are unknown; if it is gone for good, run `mammoth node rm %s`", name, name)
		}
		select {
		case <-look.C:
		case <-limit.Done():
			if errors.Is(context.Cause(ctx), errInterrupted) {
				return nil, fmt.Errorf("stopped waiting; %s is drained all the same, `mammoth node show %s` shows what is left", name, name)
			}
			return nil, fmt.Errorf("%s is not drained after %s: %s", name, short(timeout), leftOn(last))
		}
	}
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
