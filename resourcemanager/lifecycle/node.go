package lifecycle

import "github.com/mammoth-os/mammoth/internal/fsm"

// NodeState is the state of a node; see apiv1.NodeState.
type NodeState uint8

// The states of a node.
const (
	NodeUnspecified NodeState = iota
	NodeReady
	NodeUnhealthy
	NodeDraining
	NodeDrained
	NodeLost
)

// String is the protocol's name.
func (s NodeState) String() string {
	return name(s, "NODE_STATE_UNSPECIFIED", "READY", "UNHEALTHY", "DRAINING", "DRAINED", "LOST")
}

// Answers reports whether the node is connected.
func (s NodeState) Answers() bool { return s != NodeUnspecified && s != NodeLost }

// NodeEvent is what can happen to a node.
type NodeEvent uint8

// The events of a node.
const (
	// NodeRegisters: it has registered with its whole state. If it is to be drained, NodeDrain follows.
	NodeRegisters NodeEvent = iota
	// NodeFails: it reports that it is unhealthy.
	NodeFails
	// NodeRecovers: it reports that it is healthy again.
	NodeRecovers
	// NodeDrain: an operator drains it.
	NodeDrain
	// NodeEmpty: its last container was seen gone.
	NodeEmpty
	// NodeUndrain: an operator ends the drain.
	NodeUndrain
	// NodeExpires: it was silent for too long.
	NodeExpires
)

// String names the event.
func (e NodeEvent) String() string {
	return name(e, "registers", "fails", "recovers", "drain", "empty", "undrain", "expires")
}

var nodeRules = []fsm.Rule[NodeState, NodeEvent]{
	{From: []NodeState{NodeUnspecified, NodeReady, NodeUnhealthy, NodeDraining, NodeDrained, NodeLost}, On: NodeRegisters, To: NodeReady},
	{From: []NodeState{NodeReady, NodeUnhealthy}, On: NodeFails, To: NodeUnhealthy},
	{From: []NodeState{NodeReady, NodeUnhealthy}, On: NodeRecovers, To: NodeReady},
	// A drain takes precedence over the node's own health.
	{From: []NodeState{NodeDraining}, On: NodeFails, To: NodeDraining},
	{From: []NodeState{NodeDraining}, On: NodeRecovers, To: NodeDraining},
	{From: []NodeState{NodeDrained}, On: NodeFails, To: NodeDrained},
	{From: []NodeState{NodeDrained}, On: NodeRecovers, To: NodeDrained},

	{From: []NodeState{NodeReady, NodeUnhealthy, NodeDraining}, On: NodeDrain, To: NodeDraining},
	{From: []NodeState{NodeDrained}, On: NodeDrain, To: NodeDrained},
	{From: []NodeState{NodeDraining, NodeDrained}, On: NodeEmpty, To: NodeDrained},
	{From: []NodeState{NodeReady, NodeDraining, NodeDrained}, On: NodeUndrain, To: NodeReady},
	{From: []NodeState{NodeUnhealthy}, On: NodeUndrain, To: NodeUnhealthy},
	// The drain of a lost node takes effect when it returns.
	{From: []NodeState{NodeLost}, On: NodeDrain, To: NodeLost},
	{From: []NodeState{NodeLost}, On: NodeUndrain, To: NodeLost},

	{From: []NodeState{NodeReady, NodeUnhealthy, NodeDraining, NodeDrained}, On: NodeExpires, To: NodeLost},
}

// Nodes is the state machine of a node.
func Nodes() fsm.Table[NodeState, NodeEvent] { return fsm.New("node", nodeRules) }
