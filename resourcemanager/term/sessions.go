package term

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// mostCommands is how many commands may wait for a node that does not read them before its session is ended. It is told
// again what still holds once it has registered anew.
const mostCommands = 10_000

// session is the stream of one node, as far as it is not the loop's own. A zone has thousands of them that are silent
// but for their beats, so each is as small as it can be: the goroutine that receives is the only one that lasts,
// commands are sent by one that exists while there are some, and a beat touches nothing but heard.
type session struct {
	term   *Term
	name   string
	stream service.NodeStream
	// id names the stream in the zone.
	id zone.StreamID
	// heard is when the node was last heard of, as the time since the term began: setting the clock does not change it.
	heard atomic.Int64

	mu       sync.Mutex
	commands []*trackerv1.NodeCommand
	sending  bool
	// over says why the session has ended; nil until then.
	over   error
	sender sync.WaitGroup
}

// Beat implements service.NodeSession.
func (s *session) Beat() error {
	s.heard.Store(int64(time.Since(s.term.started)))
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

func (s *session) lastBeat() zone.Beat {
	return zone.Beat{Session: s.name, At: s.term.started.Add(time.Duration(s.heard.Load()))}
}

// Report implements service.NodeSession.
func (s *session) Report(ctx context.Context, report *trackerv1.NodeReport) error {
	if err := s.Beat(); err != nil {
		return err
	}
	return tell(ctx, s.term.calls, zone.NodeReport{Session: s.name, Report: report})
}

// drop ends the session for a reason and takes it out of the zone.
func (s *session) drop(why error) {
	s.end(why)
	s.sender.Wait()
	last := s.lastBeat()
	s.term.inbox.put(task{in: zone.NodeStreamEnded{Stream: s.id, Last: last}, done: func(any, error) { s.term.streams.forget(s.id) }})
}

// Close implements service.NodeSession.
func (s *session) Close() { s.drop(errClosed) }

var errClosed = fmt.Errorf("the stream is over: %w", errdefs.ErrAborted)

// put has commands sent, in their order. It does not wait, so that the loop can call it.
func (s *session) put(commands []*trackerv1.NodeCommand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil {
		return
	}
	if s.commands = append(s.commands, commands...); len(s.commands) > mostCommands {
		s.endLocked(fmt.Errorf("the node has not read %d commands; it has to register again: %w", len(s.commands), errdefs.ErrAborted))
		return
	}
	if !s.sending {
		s.sending = true
		s.sender.Go(s.send)
	}
}

// send sends what waits, until nothing does.
func (s *session) send() {
	for {
		s.mu.Lock()
		commands := s.commands
		s.commands = nil
		s.sending = len(commands) > 0
		s.mu.Unlock()
		if len(commands) == 0 {
			return
		}
		for _, command := range commands {
			if err := s.stream.Send(command); err != nil {
				s.end(err)
				break
			}
		}
	}
}

// end ends the stream, whatever is under way on it; what was not sent is dropped. The first reason counts.
func (s *session) end(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(why)
}

func (s *session) endLocked(why error) {
	if s.over != nil {
		return
	}
	s.over, s.commands = why, nil
	s.stream.End(why)
}
