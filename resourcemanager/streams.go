package resourcemanager

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
)

// streamID names a stream that a node, a master or a watcher has open, as the zone knows it. Zero is none.
type streamID int64

// streams are the open streams by their names. The loop's goroutine alone uses them, but for next.
type streams struct {
	last     atomic.Int64
	nodes    map[streamID]*session
	masters  map[streamID]*masterStream
	watchers map[streamID]*watcher
}

func newStreams() *streams {
	return &streams{
		nodes: map[streamID]*session{}, masters: map[streamID]*masterStream{}, watchers: map[streamID]*watcher{},
	}
}

// next is a name that no stream has had. Any goroutine may call it.
func (s *streams) next() streamID { return streamID(s.last.Add(1)) }

// forget is about a stream that its reader has closed, or that was never opened.
func (s *streams) forget(name streamID) {
	delete(s.nodes, name)
	delete(s.masters, name)
	delete(s.watchers, name)
}

// perform sends what a turn has for streams, and ends those that are over. None of it waits for a reader.
func (s *streams) perform(out *ready, post func(input)) {
	for _, send := range out.commands {
		if session := s.nodes[send.stream]; session != nil {
			session.put(send.commands)
		}
	}
	for _, send := range out.answers {
		s.answer(send, post)
	}
	for _, send := range out.views {
		if watcher := s.watchers[send.stream]; watcher != nil {
			watcher.replace(send.view)
		}
	}
	for _, end := range out.ends {
		s.end(end.stream, end.why)
	}
}

// mostAnswers is how many answers may wait for a master that does not read them before its stream is ended.
const mostAnswers = 10_000

func (s *streams) answer(send answerSend, post func(input)) {
	master := s.masters[send.stream]
	if master == nil || master.put(send.answer) <= mostAnswers {
		return
	}
	why := fmt.Errorf("%d answers were not read; open another stream, which begins with all that counts: %w", mostAnswers, errdefs.ErrResourceExhausted)
	s.end(send.stream, why)
	post(masterLeftInput{send.stream})
}

func (s *streams) end(name streamID, why error) {
	if session := s.nodes[name]; session != nil {
		session.end(why)
	}
	if master := s.masters[name]; master != nil {
		master.close(why)
	}
	if watcher := s.watchers[name]; watcher != nil {
		watcher.close(why)
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
	for _, watcher := range s.watchers {
		watcher.close(why)
	}
}

// beats are when each node with a stream was last heard of.
func (s *streams) beats() []beat {
	beats := make([]beat, 0, len(s.nodes))
	for _, session := range s.nodes {
		beats = append(beats, session.lastBeat())
	}
	return beats
}

// beat says when a node was last heard of, by its session.
type beat struct {
	session string
	at      time.Time
}

type (
	streamEnd struct {
		stream streamID
		why    error
	}
	commandSend struct {
		stream   streamID
		commands []*trackerv1.NodeCommand
	}
	answerSend struct {
		stream streamID
		answer *masterv1.AllocateResponse
	}
	viewSend struct {
		stream streamID
		view   *service.AppView
	}
)
