package service_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	nodev1 "github.com/mammoth-os/mammoth/proto/mammoth/node/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
	"github.com/mammoth-os/mammoth/resourcemanager/zone"
)

// stage is a loop whose app changes.
type stage struct {
	service.Apps

	mu      sync.Mutex
	targets []zone.Target
	state   apiv1.App_State
	gone    bool
	changed chan struct{}
	// written are the lines of each container, ended are those that write no more, broken those whose node does not answer.
	written       map[string][]*corev1.LogChunk_Line
	ended, broken map[string]bool
}

func newStage() *stage {
	return &stage{
		state:   apiv1.App_RUNNING,
		written: map[string][]*corev1.LogChunk_Line{}, ended: map[string]bool{}, broken: map[string]bool{},
	}
}

// launch has a container on its way: its node knows nothing of it yet.
func (s *stage) launch(container, instance string) {
	s.start(container, instance)
	s.ended[container] = true
	last := &s.targets[len(s.targets)-1]
	last.Running, last.Starting = false, true
}

// runs has it run then, or again.
func (s *stage) runs(container string) {
	s.ended[container] = false
	for i := range s.targets {
		if s.targets[i].Container == container {
			s.targets[i].Running, s.targets[i].Starting = true, false
		}
	}
}

// change lets something happen, and everybody see it.
func (s *stage) change(do func()) {
	s.mu.Lock()
	do()
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	<-time.After(time.Second)
	synctest.Wait()
}

func (s *stage) start(container, instance string) {
	s.targets = append(s.targets, zone.Target{
		Container: container, Instance: instance, Running: true, Listed: true, Node: "node-1", Token: &corev1.ContainerToken{Claims: []byte("node token")},
	})
}

func (s *stage) end(container string) {
	s.ended[container] = true
	for i := range s.targets {
		if s.targets[i].Container == container {
			s.targets[i].Running, s.targets[i].Ended = false, true
		}
	}
}

func (s *stage) write(container, text string) {
	s.written[container] = append(s.written[container], &corev1.LogChunk_Line{Text: text, Time: timestamppb.New(time.Now())})
}

func (s *stage) Targets(context.Context, zone.Containers) ([]zone.Target, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil, fmt.Errorf("no app is named \"web\": %w", errdefs.ErrNotFound)
	}
	sorted := slices.Clone(s.targets)
	slices.SortStableFunc(sorted, func(a, b zone.Target) int { return strings.Compare(a.Instance, b.Instance) })
	return sorted, nil
}

func (s *stage) WatchApp(string) (service.Stream[*service.AppView], error) {
	return &stageWatch{s, closedChannel()}, nil
}

func closedChannel() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

type stageWatch struct {
	*stage
	next chan struct{}
}

func (w *stageWatch) Next(ctx context.Context) ([]*service.AppView, error) {
	select {
	case <-w.next:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = w.changed
	if w.gone {
		return nil, fmt.Errorf("the app is removed: %w", errdefs.ErrNotFound)
	}
	return []*service.AppView{{App: &apiv1.App{Name: "web", State: w.state}}}, nil
}

func (w *stageWatch) Close() {}

// stageNode is the node of a stage.
type stageNode struct {
	nodev1.UnimplementedContainerManagerServer
	s *stage
}

// Logs follows as a node does: tail and since choose among what is there.
func (n stageNode) Logs(request *nodev1.LogsRequest, stream grpc.ServerStreamingServer[corev1.LogChunk]) error {
	s := n.s
	name, options, sent := request.GetContainerId(), request.GetOptions(), 0
	s.mu.Lock()
	if tail := int(options.GetTail()); tail >= 0 {
		sent = max(0, len(s.written[name])-tail)
	}
	s.mu.Unlock()
	for {
		s.mu.Lock()
		lines, changed, ended, broken := s.written[name][sent:], s.changed, s.ended[name], s.broken[name]
		s.mu.Unlock()
		if broken {
			return status.Error(codes.Unavailable, "the node is away")
		}
		for _, line := range lines {
			sent++
			if options.GetSince() != nil && line.GetTime().AsTime().Before(options.GetSince().AsTime()) {
				continue
			}
			if err := stream.Send(&corev1.LogChunk{Lines: []*corev1.LogChunk_Line{proto.CloneOf(line)}}); err != nil {
				return err
			}
		}
		if ended || !options.GetFollow() {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// reader collects what a call to AppLogs is sent.
type reader struct {
	mu    sync.Mutex
	lines []string
	err   error
	ended bool
}

// onStage reads the logs that a request asks for while test changes what happens.
func onStage(t *testing.T, s *stage, request *apiv1.AppLogsRequest, test func(r *reader)) {
	t.Helper()
	inServices(t, s, stageNode{s: s}, func(client apiv1.AppsClient) {
		s.changed = make(chan struct{}) // of this bubble
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stream, err := client.AppLogs(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		r := &reader{}
		go func() {
			for {
				chunk, err := stream.Recv()
				r.mu.Lock()
				if err != nil {
					r.err, r.ended = err, true
					r.mu.Unlock()
					return
				}
				r.lines = append(r.lines, chunk.GetInstance()+": "+chunk.GetLines()[0].GetText())
				r.mu.Unlock()
			}
		}()
		synctest.Wait()
		test(r)
	})
}

func (r *reader) got() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	slices.Sort(lines)
	text := strings.Join(lines, ", ")
	if r.ended {
		text += " [" + r.err.Error() + "]"
	}
	return text
}

func TestFollowingGoesOnWithTheContainersThatComeAndEndsWithTheApp(t *testing.T) {
	for _, removed := range []bool{false, true} {
		s := newStage()
		s.start("c1", "web-1")
		s.write("c1", "before")
		s.written["c1"][0].Time = timestamppb.New(time.Time{})
		onStage(t, s, &apiv1.AppLogsRequest{Name: "web", Follow: true, Tail: proto.Int32(0)}, func(r *reader) {
			expect := func(want string) {
				t.Helper()
				if got := r.got(); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			expect("")
			s.change(func() { s.write("c1", "after") })
			expect("web-1: after")
			// It crashes and is replaced; another comes beside it, and one that is over before anybody looks.
			s.change(func() { s.write("c1", "panic"); s.end("c1") })
			s.change(func() { s.start("c2", "web-1"); s.write("c2", "again"); s.start("c3", "web-2"); s.write("c3", "hello") })
			expect("web-1: again, web-1: panic, web-2: hello")
			s.change(func() { s.start("c4", "web-3"); s.write("c4", "too short"); s.end("c4") })
			expect("web-3: too short")
			// One is seen before it runs, and is restarted in the engine later.
			s.change(func() { s.launch("c5", "web-4") })
			s.change(func() { s.runs("c5"); s.write("c5", "first") })
			expect("web-4: first")
			s.change(func() { s.ended["c5"] = true })
			s.change(func() { s.runs("c5"); s.write("c5", "second") })
			<-time.After(5 * time.Second)
			expect("web-4: second")
			s.change(func() { s.end("c5") })
			// The node is away for a while; no line is lost, none comes twice.
			s.change(func() { s.broken["c2"] = true })
			s.change(func() { s.write("c2", "meanwhile") })
			s.change(func() { s.broken["c2"] = false })
			<-time.After(10 * time.Second)
			expect("web-1: meanwhile")
			s.change(func() {
				s.end("c2")
				s.end("c3")
				s.write("c3", "bye")
				s.state, s.gone = apiv1.App_STOPPED, removed
			})
			<-time.After(10 * time.Second)
			expect("web-2: bye [EOF]")
		})
	}
}

func TestLogsOfWhatHasCrashedAreThoseOfItsLastContainer(t *testing.T) {
	s := newStage()
	for _, container := range []string{"c1", "c2"} {
		s.start(container, "web-1")
		s.write(container, "panic of "+container)
		s.end(container)
	}
	s.start("c3", "web-2")
	s.write("c3", "well")
	s.start("c4", "web-3") // which there is no more
	s.write("c4", "scaled in")
	s.end("c4")
	s.targets[3].Listed = false
	onStage(t, s, &apiv1.AppLogsRequest{Name: "web"}, func(r *reader) {
		if got := r.got(); got != "web-1: panic of c2, web-2: well [EOF]" {
			t.Error(got)
		}
	})
	// What is started next has no output so far.
	s.launch("c5", "web-1")
	onStage(t, s, &apiv1.AppLogsRequest{Name: "web"}, func(r *reader) {
		if got := r.got(); got != "web-1: panic of c2, web-2: well [EOF]" {
			t.Errorf("while the next one starts: %s", got)
		}
	})
	s.targets = s.targets[3:4]
	onStage(t, s, &apiv1.AppLogsRequest{Name: "web"}, func(r *reader) {
		if got := r.got(); got != "web-3: scaled in [EOF]" {
			t.Errorf("of a stopped app: %s", got)
		}
	})
}

func TestANodeThatIsAwayKeepsNobodyFromTheLogsOfOthers(t *testing.T) {
	s := newStage()
	s.start("c1", "web-1")
	s.start("c2", "web-2")
	s.start("c3", "web-3")
	s.broken["c1"], s.broken["c2"] = true, true
	s.write("c3", "here")
	onStage(t, s, &apiv1.AppLogsRequest{Name: "web"}, func(r *reader) {
		got := r.got()
		if !strings.HasPrefix(got, "web-3: here [") || strings.Count(got, "the node is away") != 1 {
			t.Error(got)
		}
	})
}

// Once the replacement of a container on a lost node runs, its logs are read and not those of the lost one.
func TestLogsOfWhatALostNodeHoldsAreThoseOfItsReplacement(t *testing.T) {
	s := newStage()
	s.start("c1", "web-1")
	s.start("c2", "web-1")
	s.start("c3", "web-2")
	for _, i := range []int{0, 2} {
		s.targets[i].Node, s.targets[i].Lost, s.targets[i].Trouble = "node-2", true, "node-2 is lost"
	}
	s.broken["c1"], s.broken["c3"] = true, true
	s.write("c2", "here")
	onStage(t, s, &apiv1.AppLogsRequest{Name: "web"}, func(r *reader) {
		if got := r.got(); !strings.HasPrefix(got, "web-1: here [") || !strings.Contains(got, "cannot read the logs of web-2: node-2 is lost") || strings.Contains(got, "of web-1") {
			t.Error(got)
		}
	})
	s.targets = s.targets[:2]
	onStage(t, s, &apiv1.AppLogsRequest{Name: "web", Instance: "web-1"}, func(r *reader) {
		if got := r.got(); got != "web-1: here [EOF]" {
			t.Error(got)
		}
	})
}

func TestOnlySoManyInstancesAreFollowed(t *testing.T) {
	s := newStage()
	for n := range 513 {
		s.start(fmt.Sprintf("c%d", n), fmt.Sprintf("web-%d", n))
	}
	onStage(t, s, &apiv1.AppLogsRequest{Name: "web", Follow: true}, func(r *reader) {
		if got := r.got(); strings.Count(got, "rpc error") != 1 || !strings.Contains(got, "web has 513 containers, and at most 512 can be followed at once; name an instance]") {
			t.Error(got)
		}
	})
}
