package term

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	trackerv1 "github.com/mammoth-os/mammoth/proto/mammoth/tracker/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// quietNode is a node that registers, opens its stream and says nothing more. It gives what ended the stream.
func (z *testZone) quietNode(name string) <-chan error { return z.quietNodeOn(name, "", "") }

func (z *testZone) quietNodeOn(name, folder, process string) <-chan error {
	z.t.Helper()
	client := trackerv1.NewResourceTrackerClient(z.conn)
	response, err := client.Register(context.Background(), &trackerv1.RegisterRequest{NodeId: name, FolderId: folder, ProcessId: process})
	if err != nil {
		z.t.Fatal(err)
	}
	stream, err := client.Session(context.Background())
	if err != nil {
		z.t.Fatal(err)
	}
	if err := stream.Send(&trackerv1.NodeReport{Session: response.GetSession()}); err != nil {
		z.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				ended <- err
				return
			}
		}
	}()
	synctest.Wait()
	return ended
}

// A node whose session is over is told so at once, not when it reports next.
func TestASessionThatIsOverEndsItsStream(t *testing.T) {
	inZone(t, func(z *testZone) {
		lost := z.quietNode("node-1")
		began := time.Now()
		if err := <-lost; status.Code(err) != codes.Aborted || time.Since(began) > 12*time.Second {
			t.Errorf("the stream of a lost node ended after %s with %v", time.Since(began), err)
		}
		replaced := z.quietNode("node-2")
		began = time.Now()
		z.quietNode("node-2")
		if err := <-replaced; status.Code(err) != codes.Aborted || time.Since(began) > 0 {
			t.Errorf("the stream of a node that registered anew ended after %s with %v", time.Since(began), err)
		}
		stopped := z.quietNode("node-3")
		began = time.Now()
		z.end()
		if err := <-stopped; status.Code(err) != codes.Unavailable || time.Since(began) > 0 {
			t.Errorf("the stream ended %s after the ResourceManager with %v", time.Since(began), err)
		}
	})
}

// fullStream is a node that takes no command.
type fullStream struct{ ended chan error }

func (s *fullStream) Send(*trackerv1.NodeCommand) error {
	why := <-s.ended
	s.ended <- why
	return why
}

func (s *fullStream) End(why error) { s.ended <- why }

func TestANodeThatReadsNoCommandsIsToRegisterAgain(t *testing.T) {
	inZone(t, func(z *testZone) {
		full := &fullStream{ended: make(chan error, 1)}
		s := &session{term: z.rm, name: "of nobody", stream: full}
		command := []*trackerv1.NodeCommand{{}}
		for range mostCommands + 1 { // one is being sent
			s.put(command)
			synctest.Wait()
		}
		if err := s.Beat(); err != nil {
			t.Errorf("the session ended too soon: %v", err)
		}
		s.put(command)
		if err := s.Beat(); !errdefs.IsAborted(err) {
			t.Errorf("with too many commands waiting the session says %v", err)
		}
		s.put(command)
		s.Close()
		if err := <-full.ended; !errdefs.IsAborted(err) || len(s.commands) > 0 {
			t.Errorf("the stream ended with %v, %d commands wait", err, len(s.commands))
		}
	})
}

// A caller that goes away while the loop opens its session leaves nothing behind.
func TestASessionThatNobodyWaitsForIsDropped(t *testing.T) {
	inZone(t, func(z *testZone) {
		response, err := z.rm.RegisterNode(context.Background(), &trackerv1.RegisterRequest{NodeId: "node-1"})
		if err != nil {
			t.Fatal(err)
		}
		z.goneMeanwhile(func(ctx context.Context) error {
			_, err := z.rm.OpenSession(ctx, response.GetSession(), &fullStream{ended: make(chan error, 1)})
			return err
		})
		open, err := look(context.Background(), z.rm.calls, func(z *zone.Core) (bool, error) { return z.StreamOf("node-1") != 0, nil })
		if err != nil || open {
			t.Errorf("the loop holds a stream that nobody reads: %v, %v", open, err)
		}
	})
}
