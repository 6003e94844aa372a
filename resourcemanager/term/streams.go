package term

import (
	"fmt"
	"sync/atomic"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/resourcemanager/zone"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/commands"
)

// streams are the open streams by their names. The loop's goroutine alone uses them, but for next.
type streams struct {
	last    atomic.Int64
	nodes   map[zone.StreamID]*session
	masters map[zone.StreamID]*masterStream
	// calls are those who wait for the answer to a command.
	calls map[commands.CallID]chan<- commands.Answered
}

func newStreams() *streams {
	return &streams{
		nodes: map[zone.StreamID]*session{}, masters: map[zone.StreamID]*masterStream{},
		calls: map[commands.CallID]chan<- commands.Answered{},
	}
}

// next is a name that no stream has had. Any goroutine may call it.
func (s *streams) next() zone.StreamID { return zone.StreamID(s.last.Add(1)) }

// nextCall is a name that nobody who waits for an answer has had. Any goroutine may call it.
func (s *streams) nextCall() commands.CallID { return commands.CallID(s.last.Add(1)) }

// forget drops a stream by its name.
func (s *streams) forget(name zone.StreamID) {
	delete(s.nodes, name)
	delete(s.masters, name)
}

// perform sends what a turn has for streams, and ends those that are over. None of it waits for a reader.
func (s *streams) perform(out *zone.Ready, post func(zone.Input)) {
	for _, send := range out.Commands {
		if session := s.nodes[send.Stream]; session != nil {
			session.put(send.Commands)
		}
	}
	for _, send := range out.Responses {
		s.respond(send, post)
	}
	for _, answered := range out.Answered {
		if answers := s.calls[answered.Call]; answers != nil {
			answers <- answered // it has room for the one answer
			delete(s.calls, answered.Call)
		}
	}
	for _, end := range out.Ends {
		s.end(end.Stream, end.Why)
	}
}

// mostResponses is how many responses may wait for a master that does not read them before its stream is ended.
const mostResponses = 10_000

func (s *streams) respond(send zone.ResponseSend, post func(zone.Input)) {
	master := s.masters[send.Stream]
	if master == nil || master.put(send.Response) <= mostResponses {
		return
	}
	why := fmt.Errorf("%d responses were not read; open another stream, which begins with all that counts: %w", mostResponses, errdefs.ErrResourceExhausted)
	s.end(send.Stream, why)
	post(zone.MasterStreamEnded{Stream: send.Stream})
}

func (s *streams) end(name zone.StreamID, why error) {
	if session := s.nodes[name]; session != nil {
		session.end(why)
	}
	if master := s.masters[name]; master != nil {
		master.close(why)
	}
	s.forget(name)
}

func (s *streams) endAll(why error) {
	for _, session := range s.nodes {
		session.end(why)
	}
	for _, master := range s.masters {
		master.close(why)
	}
}

// beats are when each node with a stream was last heard of.
func (s *streams) beats() []zone.Beat {
	beats := make([]zone.Beat, 0, len(s.nodes))
	for _, session := range s.nodes {
		beats = append(beats, session.lastBeat())
	}
	return beats
}
