package zone

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
)

// nodeSession is a node's session with the present ResourceManager.
type nodeSession struct {
	// id is empty until the node has registered with this ResourceManager.
	id string
	// stream is zero until the node has opened it, and when it has ended.
	stream StreamID
	// commands are sent on the stream at the end of the turn.
	commands []*trackerv1.NodeCommand
	// heard is when the node was last heard of, as far as the zone knows.
	heard time.Time
	// process is the random id of the process that registered last.
	process string
	// twin is the refused NodeManager of the same name that the last event was about, twinEventAt when that was.
	twin        string
	twinEventAt time.Time
}

// sessions are the sessions of nodes: a node has one from its registration until the next one, or until it is lost. They hold the streams
// and the commands that are sent on them, and decide which NodeManager may register.
type sessions struct {
	*turn
	config *config
	nodes  *nodes
	views  *views
	// byID are the nodes that have registered, by the ids of their sessions.
	byID map[string]*node
	// pending are the nodes that are sent commands at the end of the turn.
	pending map[id.Node]*node
}

func (n *node) registered() bool { return n.session.id != "" }

func (n *node) connected() bool { return n.session.stream != 0 }

// stream is the stream that the node has open; zero is none.
func (n *node) stream() StreamID { return n.session.stream }

// lastHeard is when the node was last heard of, as far as the zone knows: beats are passed on once a tick.
func (n *node) lastHeard() time.Time { return n.session.heard }

func (ss *sessions) begin() { ss.pending = map[id.Node]*node{} }

// get is the node with a session; nil if there is none.
func (ss *sessions) get(session string) *node { return ss.byID[session] }

// streamOf is the stream that a node has open, if any.
func (ss *sessions) streamOf(name string) StreamID {
	if n := ss.nodes.get(id.Node(name)); n != nil {
		return n.stream()
	}
	return 0
}

// start gives a node a new session, and returns its id.
func (ss *sessions) start(n *node, process string) string {
	ss.end(n, fmt.Errorf("node %q has registered anew: %w", n.id, errdefs.ErrAborted))
	n.session.id, n.session.process, n.session.heard, n.session.twin = ss.secrets.text(), process, ss.now, ""
	ss.byID[n.session.id] = n
	return n.session.id
}

func (ss *sessions) end(n *node, why error) {
	ss.closeStream(n, why)
	delete(ss.byID, n.session.id)
	n.session.id = ""
}

var errRegisterAgain = fmt.Errorf("this session is over; the node has to register again: %w", errdefs.ErrAborted)

// open begins the stream of commands to a node.
func (ss *sessions) open(n *node, stream StreamID) {
	ss.closeStream(n, fmt.Errorf("node %q has opened another stream: %w", n.id, errdefs.ErrAborted))
	n.session.stream, n.session.heard = stream, ss.now
	ss.views.nodeChanged(n.id)
}

// streamEnded notes that a stream has ended, with the last beat on it; it may be an earlier stream.
func (ss *sessions) streamEnded(stream StreamID, last Beat) {
	ss.noteHeard(last)
	if n := ss.byID[last.Session]; n != nil && n.session.stream == stream {
		ss.closeStream(n, errLeft)
	}
}

// closeStream ends a node's stream if it has one.
func (ss *sessions) closeStream(n *node, why error) {
	if !n.connected() {
		return
	}
	ss.out.Ends = append(ss.out.Ends, StreamEnd{n.session.stream, why})
	n.session.stream, n.session.commands = 0, nil
	ss.views.nodeChanged(n.id)
}

// noteHeard notes when a node was last heard of.
func (ss *sessions) noteHeard(last Beat) {
	if n := ss.byID[last.Session]; n != nil && last.At.After(n.session.heard) {
		n.session.heard = last.At
	}
}

// send sends a command to a node at the end of the turn. A node that is not connected is sent its commands when it opens a stream, from
// what is stored.
func (ss *sessions) send(n *node, command *trackerv1.NodeCommand) {
	if n == nil || !n.connected() {
		return
	}
	n.session.commands = append(n.session.commands, command)
	ss.pending[n.id] = n
}

// deliver hands over the commands of the turn.
func (ss *sessions) deliver() {
	for _, n := range slices.SortedFunc(maps.Values(ss.pending), byName) {
		if n.connected() && len(n.session.commands) > 0 {
			ss.out.Commands = append(ss.out.Commands, CommandSend{n.session.stream, n.session.commands})
		}
		n.session.commands = nil
	}
}
