package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/mammoth-os/mammoth/internal/id"
)

// stage is a role and the little that a transcript needs of the world around it.
type stage struct {
	role    *Role
	wanted  Wanted
	now     time.Time
	attempt int32
	asks    map[string]Ask
	// containers by sequence number: "c1" is the first that was granted.
	containers []*prop
	leaving    []string
	// detail is what a probe last saw.
	detail  string
	printed *strings.Builder
}

// prop is a container of the stage.
type prop struct {
	id      id.Container
	node    id.Node
	number  int
	version int32
	started bool
	gone    bool
	at      time.Time
}

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newStage() *stage {
	return &stage{
		role: New("web", 1), attempt: 1, now: begin, asks: map[string]Ask{},
		wanted: Wanted{
			Update:  Update{MaxSurge: 1, Deadline: 5 * time.Minute},
			Restart: Restart{Window: 10 * time.Minute, MaxFailures: 5, Backoff: time.Second, MaxBackoff: time.Minute},
		},
	}
}

// TestTranscripts replays testdata/transcript. Each command is a fact; the answer is what the plan does about it and when it wants to
// be asked again.
//
//	want count=3 version=2 …       what people want; what is not named stays as it was
//	grant web-1 n1                 the container asked for, on a node
//	running|healthy|sick c1        what the node says of a container; saw=(…) is what its probe saw
//	preparing|downloading|loading|launching c1
//	gone c1 blame=app|node|either|nobody  it was seen gone
//	refused c1                     its node did not accept the start
//	unanswered c1                  its node did not answer the start
//	out web-1                      it is in no registry and no balancer any more
//	counted web-1 100 errors=3     what balancers have counted for it
//	node n1 ready|draining|lost    what the ResourceManager thinks of a node
//	unheard|heard n1               whether its word on containers is heard
//	preempt c1 in=30s              it will be taken away
//	pass 10s                       time goes by, and everything that falls due is done
//	settle n1 n2                   the world obliges: asks are granted, starts become healthy, releases are seen gone
//	reborn                         the master dies, and the next one takes over from its memo and the containers
//	show                           what is reported
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcript", func(t *testing.T, path string) {
		s := newStage()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.printed = &strings.Builder{}
			s.command(t, d)
			if s.printed.Len() == 0 {
				return "(nothing)"
			}
			return s.printed.String()
		})
	})
}

func (s *stage) command(t *testing.T, d *datadriven.TestData) {
	t.Helper()
	name := ""
	if len(d.CmdArgs) > 0 {
		name = d.CmdArgs[0].Key
	}
	switch d.Cmd {
	case "want":
		s.want(t, d)
	case "grant":
		for ask, a := range s.asks {
			if a.Instance == name {
				s.grant(ask, id.Node(d.CmdArgs[1].Key))
			}
		}
	case "running", "healthy", "sick":
		s.detail = ""
		if d.HasArg("saw") {
			s.detail = arg(t, d, "saw")
		}
		s.observe(t, name, d.Cmd)
	case "preparing", "downloading", "loading", "launching":
		stages := map[string]Stage{"preparing": Preparing, "downloading": Downloading, "loading": Loading, "launching": Launching}
		s.role.Observe(Status{Container: s.find(t, name).id, Stage: stages[d.Cmd]}, s.now)
	case "gone":
		blame := App
		switch {
		case d.HasArg("blame") && arg(t, d, "blame") == "node":
			blame = Node
		case d.HasArg("blame") && arg(t, d, "blame") == "either":
			blame = Either
		case d.HasArg("blame") && arg(t, d, "blame") == "nobody":
			blame = Nobody
		}
		c := s.find(t, name)
		c.gone = true
		s.role.Ended(c.id, Exit{Blame: blame, Reason: "it exited with code 1"}, s.now)
	case "refused":
		s.role.StartFailed(s.find(t, name).id, "the node did not accept it", Refused, s.now)
	case "unanswered":
		s.role.StartFailed(s.find(t, name).id, "the node did not answer", Unanswered, s.now)
	case "out":
		s.role.Withdrawn(name, s.now)
	case "counted":
		var requests, errors int
		if _, err := fmt.Sscan(d.CmdArgs[1].Key, &requests); err != nil {
			d.Fatalf(t, "%v", err)
		}
		d.ScanArgs(t, "errors", &errors)
		s.role.Counted(name, int64(requests), int64(errors), s.now)
	case "node":
		states := map[string]NodeState{"ready": Ready, "unwell": Unwell, "draining": Draining, "lost": Lost}
		s.role.SetNode(id.Node(name), states[d.CmdArgs[1].Key])
	case "heard", "unheard":
		s.role.SetSeen(id.Node(name), d.Cmd == "heard")
	case "preempt":
		s.role.Preempted(s.find(t, name).id, s.now.Add(span(t, d, "in")))
	case "pass":
		d, err := time.ParseDuration(name)
		if err != nil {
			t.Fatal(err)
		}
		s.pass(d)
		return
	case "settle":
		var nodes []id.Node
		for _, a := range d.CmdArgs {
			nodes = append(nodes, id.Node(a.Key))
		}
		s.settle(nodes)
		return
	case "reborn":
		s.reborn()
	case "show":
		s.show()
		return
	default:
		d.Fatalf(t, "unknown command %q", d.Cmd)
	}
	next := s.next()
	if !next.IsZero() {
		fmt.Fprintf(s.printed, "(again in %v)\n", next.Sub(s.now))
	}
}

func (s *stage) want(t *testing.T, d *datadriven.TestData) {
	t.Helper()
	number := func(name string, into *int) {
		if d.HasArg(name) {
			d.ScanArgs(t, name, into)
		}
	}
	number("count", &s.wanted.Count)
	number("surge", &s.wanted.Update.MaxSurge)
	number("unavailable", &s.wanted.Update.MaxUnavailable)
	number("percent", &s.wanted.Update.Percent)
	if d.HasArg("strategy") {
		s.wanted.Update.Strategy = map[string]Strategy{"rolling": Rolling, "canary": Canary, "blue-green": BlueGreen}[arg(t, d, "strategy")]
		s.wanted.Update.Exclusive = d.HasArg("exclusive")
	}
	if d.HasArg("errors") {
		errors := 0
		number("errors", &errors)
		s.wanted.Update.MaxErrorPercent = float64(errors)
	}
	s.wanted.Paused = d.HasArg("paused")
	if d.HasArg("version") {
		version := 0
		d.ScanArgs(t, "version", &version)
		s.wanted.Version = int32(version)
	}
	if d.HasArg("healthy-for") {
		s.wanted.Update.MinHealthy = span(t, d, "healthy-for")
	}
	if d.HasArg("start-period") {
		s.wanted.StartPeriod = span(t, d, "start-period")
	}
	if d.HasArg("drain") {
		s.wanted.Drain = span(t, d, "drain")
	}
	s.wanted.CanRevert = d.HasArg("revertible")
	s.wanted.Reverted = d.HasArg("reverted")
	if d.HasArg("restart") {
		s.wanted.RestartBefore = s.now
	}
	s.role.Want(s.wanted, s.now)
	if d.HasArg("same-as") {
		same := 0
		d.ScanArgs(t, "same-as", &same)
		s.role.Rename(int32(same), s.wanted.Version)
	}
}

func arg(t *testing.T, d *datadriven.TestData, name string) string {
	t.Helper()
	var value string
	d.ScanArgs(t, name, &value)
	return value
}

func span(t *testing.T, d *datadriven.TestData, name string) time.Duration {
	t.Helper()
	span, err := time.ParseDuration(arg(t, d, name))
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	return span
}

func (s *stage) find(t *testing.T, name string) *prop {
	t.Helper()
	for _, c := range s.containers {
		if short(c.id) == name {
			return c
		}
	}
	t.Fatalf("no container is called %s", name)
	return nil
}

func short(c id.Container) string { return fmt.Sprintf("c%d", c.Seq) }

func (s *stage) grant(ask string, node id.Node) *prop {
	a := s.asks[ask]
	delete(s.asks, ask)
	c := &prop{id: id.Container{Epoch: 1, Seq: int64(len(s.containers) + 1)}, node: node, number: a.Number, version: a.Version, at: s.now}
	s.containers = append(s.containers, c)
	s.role.Granted(Grant{Container: c.id, Node: node, Ask: ask, Version: a.Version, At: s.now})
	return c
}

func (s *stage) observe(t *testing.T, name, what string) {
	t.Helper()
	s.role.Observe(Status{
		Container: s.find(t, name).id, Stage: Running, RunningSince: s.now,
		Health: map[string]Health{"running": Unproven, "healthy": Good, "sick": Bad}[what], Reason: s.detail,
	}, s.now)
}

// next has the plan decide, prints what it does and keeps book of it.
func (s *stage) next() time.Time {
	actions, next := s.role.Next(s.now)
	for _, action := range actions {
		s.perform(action)
	}
	return next
}

func (s *stage) perform(action Action) {
	switch a := action.(type) {
	case Ask:
		s.asks[a.ID] = a
		fmt.Fprintf(s.printed, "ask %s for version %d", a.ID, a.Version)
		if len(a.Avoid) > 0 {
			fmt.Fprintf(s.printed, " avoiding %v", a.Avoid)
		}
		fmt.Fprintln(s.printed)
	case Unask:
		delete(s.asks, a.ID)
		fmt.Fprintf(s.printed, "withdraw ask %s\n", a.ID)
	case Start:
		for _, c := range s.containers {
			if c.id == a.Container {
				c.started, c.version, c.number = true, a.Version, a.Number
			}
		}
		fmt.Fprintf(s.printed, "start %s version %d in %s\n", a.Instance, a.Version, short(a.Container))
	case TakeOut:
		s.leaving = append(s.leaving, a.Instance)
		fmt.Fprintf(s.printed, "take %s out of the registry\n", a.Instance)
	case Release:
		fmt.Fprintf(s.printed, "release %s\n", short(a.Container))
	case Close:
		fmt.Fprintf(s.printed, "%s is closed\n", a.Instance)
	case Revert:
		fmt.Fprintf(s.printed, "revert version %d: %s\n", a.From, a.Reason)
	}
}

// pass lets time go by from deadline to deadline.
func (s *stage) pass(d time.Duration) {
	until := s.now.Add(d)
	for {
		next := s.next()
		if next.IsZero() || next.After(until) {
			s.now = until
			if next := s.next(); !next.IsZero() {
				fmt.Fprintf(s.printed, "(again in %v)\n", next.Sub(s.now))
			}
			return
		}
		s.now = next
		before := s.printed.Len()
		s.next()
		if s.printed.Len() > before {
			fmt.Fprintf(s.printed, "  (that was at %v)\n", s.now.Sub(begin))
		}
	}
}

// settle is a world in which everything works, until nothing is left to do.
func (s *stage) settle(nodes []id.Node) {
	turn := 0
	for range 1000 {
		s.next()
		busy := false
		asks := make([]string, 0, len(s.asks))
		for ask := range s.asks {
			asks = append(asks, ask)
		}
		slices.SortFunc(asks, func(a, b string) int { return s.asks[a].Number - s.asks[b].Number })
		for _, ask := range asks {
			node := nodes[turn%len(nodes)]
			turn++
			c := s.grant(ask, node)
			s.next()
			s.role.Observe(Status{Container: c.id, Stage: Running, Health: Good, RunningSince: s.now}, s.now)
			busy = true
		}
		leaving := s.leaving
		s.leaving = nil
		for _, instance := range leaving {
			s.role.Withdrawn(instance, s.now)
			busy = true
		}
		for _, slot := range s.role.sorted() {
			if slot.current != nil && slot.current.released {
				for _, c := range s.containers {
					if c.id == slot.current.id {
						c.gone = true
					}
				}
				s.role.Ended(slot.current.id, Exit{Blame: Nobody}, s.now)
				busy = true
			}
		}
		if !busy {
			return
		}
		s.now = s.now.Add(time.Second)
	}
	fmt.Fprintln(s.printed, "(it never settles)")
}

func (s *stage) reborn() {
	memo := s.role.Memo()
	nodes := s.role.nodes
	s.attempt++
	s.role = New("web", s.attempt)
	for name, n := range nodes {
		s.role.SetNode(name, n.state)
	}
	s.role.Want(s.wanted, s.now)
	s.role.Restore(memo)
	for _, c := range s.containers {
		if c.started && !c.gone {
			s.role.Adopt(Adopted{Container: c.id, Number: c.number, Version: c.version, Node: c.node, GrantedAt: c.at})
		}
	}
	clear(s.asks)
}

func (s *stage) show() {
	names := [...]string{
		Unseen: "unseen", Pending: "pending", IsDownloading: "downloading", IsLoading: "loading", Starting: "starting",
		IsRunning: "running", Unhealthy: "unhealthy", IsDraining: "draining", Stopping: "stopping", Backoff: "backoff", Unreachable: "unreachable",
	}
	for _, i := range s.role.Instances(s.now) {
		fmt.Fprintf(s.printed, "%s version %d %s", i.Name, i.Version, names[i.State])
		if !i.Container.IsZero() {
			fmt.Fprintf(s.printed, " in %s", short(i.Container))
		}
		if i.InService {
			fmt.Fprint(s.printed, ", in service")
			if i.Weight != normalWeight {
				fmt.Fprintf(s.printed, " with weight %d", i.Weight)
			}
		}
		if i.Restarts > 0 {
			fmt.Fprintf(s.printed, ", %d restarts", i.Restarts)
		}
		if i.Reason != "" {
			fmt.Fprintf(s.printed, ": %s", i.Reason)
		}
		if !i.NextAttempt.IsZero() {
			fmt.Fprintf(s.printed, "; next try in %v", i.NextAttempt.Sub(s.now))
		}
		fmt.Fprintln(s.printed)
	}
	states := [...]string{NoRollout: "none", Progressing: "progressing", Done: "done", Failed: "failed", Reverted: "reverted", Paused: "paused"}
	o := s.role.Rollout(s.now)
	fmt.Fprintf(s.printed, "rollout of version %d: %s, %d of %d", o.Version, states[o.State], o.Updated, o.Total)
	if o.State == Progressing || o.State == Paused {
		fmt.Fprintf(s.printed, ", %d %%", o.Percent)
	}
	if o.Failures > 0 {
		fmt.Fprintf(s.printed, ", failure %d of %d", o.Failures, o.MaxFailures)
	}
	if !o.FailsAt.IsZero() {
		fmt.Fprintf(s.printed, ", fails in %v", o.FailsAt.Sub(s.now))
	}
	if o.Reverts {
		fmt.Fprint(s.printed, " and is reverted")
	}
	if o.Reason != "" {
		fmt.Fprintf(s.printed, ": %s", o.Reason)
	}
	fmt.Fprintln(s.printed)
}
