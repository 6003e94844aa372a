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

// stage is a role and what a transcript needs of its surroundings.
type stage struct {
	role    *Role
	desired Desired
	now     time.Time
	attempt int32
	asks    map[string]Ask
	// containers by sequence number: "c1" is the first that was granted.
	containers []*prop
	leaving    []string
	// detail is what a probe saw last.
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
		desired: Desired{
			Update:  Update{MaxSurge: 1, Deadline: 5 * time.Minute},
			Restart: Restart{Window: 10 * time.Minute, MaxFailures: 5, Backoff: time.Second, MaxBackoff: time.Minute},
		},
	}
}

// TestTranscripts replays testdata/transcript. Each command is a fact. The output is the actions of the plan, and when Next is
// to be called again.
//
//	desired count=3 version=2 …    sets the desired state; what is not named stays
//	grant web-1 n1                 grants the container that the instance asked for, on a node
//	running|healthy|unhealthy c1   a node's report; saw=(…) is the result of the last probe
//	preparing|downloading|loading|launching c1
//	ended c1 blame=app|node|either|nobody
//	refused c1                     its node refused the start
//	unanswered c1                  its node did not answer the start
//	withdrawn web-1                no registry has it and no balancer routes to it
//	traffic web-1 100 errors=3     the counts of the balancers
//	node n1 ready|unhealthy|draining|lost
//	disconnect|connect n1          whether the node's reports arrive
//	preempt c1 in=30s              a preemption notice
//	pass 10s                       advances the time, from deadline to deadline
//	settle n1 n2                   grants asks, reports starts as healthy and releases as ended
//	newmaster                      the next master takes over with the memo and the containers
//	show                           prints what is reported
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
	case "desired":
		s.setDesired(t, d)
	case "grant":
		for ask, a := range s.asks {
			if a.Instance == name {
				s.grant(ask, id.Node(d.CmdArgs[1].Key))
			}
		}
	case "running", "healthy", "unhealthy":
		s.detail = ""
		if d.HasArg("saw") {
			s.detail = arg(t, d, "saw")
		}
		s.observe(t, name, d.Cmd)
	case "preparing", "downloading", "loading", "launching":
		stages := map[string]Stage{"preparing": StagePreparing, "downloading": StageDownloading, "loading": StageLoading, "launching": StageLaunching}
		s.role.Observe(Status{Container: s.find(t, name).id, Stage: stages[d.Cmd]}, s.now)
	case "ended":
		blame := BlameApp
		switch {
		case d.HasArg("blame") && arg(t, d, "blame") == "node":
			blame = BlameNode
		case d.HasArg("blame") && arg(t, d, "blame") == "either":
			blame = BlameEither
		case d.HasArg("blame") && arg(t, d, "blame") == "nobody":
			blame = BlameNobody
		}
		c := s.find(t, name)
		c.gone = true
		s.role.Ended(c.id, Exit{Blame: blame, Reason: "it exited with code 1"}, s.now)
	case "refused":
		s.role.StartFailed(s.find(t, name).id, "the node did not accept it", StartRefused, s.now)
	case "unanswered":
		s.role.StartFailed(s.find(t, name).id, "the node did not answer", StartUnanswered, s.now)
	case "withdrawn":
		s.role.Withdrawn(name, s.now)
	case "traffic":
		var requests, errors int
		if _, err := fmt.Sscan(d.CmdArgs[1].Key, &requests); err != nil {
			d.Fatalf(t, "%v", err)
		}
		d.ScanArgs(t, "errors", &errors)
		s.role.AddTraffic(name, int64(requests), int64(errors), s.now)
	case "node":
		states := map[string]NodeState{"ready": NodeReady, "unhealthy": NodeUnhealthy, "draining": NodeDraining, "lost": NodeLost}
		s.role.SetNode(id.Node(name), states[d.CmdArgs[1].Key])
	case "connect", "disconnect":
		s.role.SetConnected(id.Node(name), d.Cmd == "connect")
	case "preempt":
		s.role.SetPreemption(s.find(t, name).id, s.now.Add(span(t, d, "in")))
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
	case "newmaster":
		s.newMaster()
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

func (s *stage) setDesired(t *testing.T, d *datadriven.TestData) {
	t.Helper()
	number := func(name string, into *int) {
		if d.HasArg(name) {
			d.ScanArgs(t, name, into)
		}
	}
	number("count", &s.desired.Count)
	number("surge", &s.desired.Update.MaxSurge)
	number("unavailable", &s.desired.Update.MaxUnavailable)
	number("percent", &s.desired.Update.Percent)
	if d.HasArg("strategy") {
		s.desired.Update.Strategy = map[string]Strategy{"rolling": Rolling, "canary": Canary, "blue-green": BlueGreen}[arg(t, d, "strategy")]
		s.desired.Update.Exclusive = d.HasArg("exclusive")
	}
	if d.HasArg("errors") {
		errors := 0
		number("errors", &errors)
		s.desired.Update.MaxErrorPercent = float64(errors)
	}
	s.desired.Paused = d.HasArg("paused")
	if d.HasArg("version") {
		version := 0
		d.ScanArgs(t, "version", &version)
		s.desired.Version = int32(version)
	}
	if d.HasArg("healthy-for") {
		s.desired.Update.MinHealthy = span(t, d, "healthy-for")
	}
	if d.HasArg("start-period") {
		s.desired.StartPeriod = span(t, d, "start-period")
	}
	if d.HasArg("drain") {
		s.desired.Drain = span(t, d, "drain")
	}
	s.desired.CanRevert = d.HasArg("revertible")
	s.desired.Reverted = d.HasArg("reverted")
	if d.HasArg("restart") {
		s.desired.RestartBefore = s.now
	}
	s.role.SetDesired(s.desired, s.now)
	if d.HasArg("same-as") {
		same := 0
		d.ScanArgs(t, "same-as", &same)
		s.role.MergeVersion(int32(same), s.desired.Version)
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
		Container: s.find(t, name).id, Stage: StageRunning, RunningSince: s.now,
		Health: map[string]Health{"running": HealthUnknown, "healthy": Healthy, "unhealthy": Unhealthy}[what], Reason: s.detail,
	}, s.now)
}

// next prints the actions of the plan and records them.
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
	case WithdrawAsk:
		delete(s.asks, a.ID)
		fmt.Fprintf(s.printed, "withdraw ask %s\n", a.ID)
	case Start:
		for _, c := range s.containers {
			if c.id == a.Container {
				c.started, c.version, c.number = true, a.Version, a.Number
			}
		}
		fmt.Fprintf(s.printed, "start %s version %d in %s\n", a.Instance, a.Version, short(a.Container))
	case Withdraw:
		s.leaving = append(s.leaving, a.Instance)
		fmt.Fprintf(s.printed, "take %s out of the registry\n", a.Instance)
	case Release:
		fmt.Fprintf(s.printed, "release %s because %s\n", short(a.Container), a.Reason)
	case Forget:
		fmt.Fprintf(s.printed, "%s is closed\n", a.Instance)
	case Revert:
		fmt.Fprintf(s.printed, "revert version %d: %s\n", a.From, a.Reason)
	}
}

// pass advances the time from deadline to deadline.
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

// settle grants, starts and confirms everything until nothing is left to do.
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
			s.role.Observe(Status{Container: c.id, Stage: StageRunning, Health: Healthy, RunningSince: s.now}, s.now)
			busy = true
		}
		leaving := s.leaving
		s.leaving = nil
		for _, instance := range leaving {
			s.role.Withdrawn(instance, s.now)
			busy = true
		}
		for _, slot := range s.role.slots.sorted() {
			if slot.container != nil && slot.container.released {
				for _, c := range s.containers {
					if c.id == slot.container.id {
						c.gone = true
					}
				}
				s.role.Ended(slot.container.id, Exit{Blame: BlameNobody}, s.now)
				busy = true
			}
		}
		if !busy {
			return
		}
		s.now = s.now.Add(time.Second)
	}
	fmt.Fprintln(s.printed, "(it never comes to rest)")
}

func (s *stage) newMaster() {
	memo := s.role.Memo()
	nodes := s.role.nodes.byName
	s.attempt++
	s.role = New("web", s.attempt)
	for name, n := range nodes {
		s.role.SetNode(name, n.state)
	}
	s.role.SetDesired(s.desired, s.now)
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
		InstanceUnknown: "unseen", InstancePending: "pending", InstanceDownloading: "downloading", InstanceLoading: "loading", InstanceStarting: "starting",
		InstanceRunning: "running", InstanceUnhealthy: "unhealthy", InstanceDraining: "draining", InstanceStopping: "stopping", InstanceBackoff: "backoff", InstanceUnreachable: "unreachable",
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
