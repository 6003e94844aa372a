package health_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/health"
)

func key(seq int64) id.Container {
	return id.Container{Epoch: 1, App: id.App{ClusterStart: 1, Seq: 1}, Seq: seq}
}

// bench runs a prober in a bubble and collects its verdicts.
type bench struct {
	*testing.T
	*health.Prober
	mu       sync.Mutex
	verdicts []health.Verdict
}

func inBubble(t *testing.T, test func(*bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t}
		b.Prober = health.NewProber(health.Limits{Plain: 64, Exec: 8, Total: 512}, func(v health.Verdict) {
			b.mu.Lock()
			b.verdicts = append(b.verdicts, v)
			b.mu.Unlock()
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { b.Prober.Run(ctx); close(done) }()
		test(b)
		cancel()
		<-done
	})
}

func (b *bench) pass(d time.Duration) []health.Verdict {
	<-time.After(d)
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	verdicts := b.verdicts
	b.verdicts = nil
	return verdicts
}

func target(check health.Check) health.Target {
	return health.Target{Check: check, Interval: time.Second, Timeout: time.Second, Healthy: 1, Unhealthy: 3}
}

func TestTheFirstProbesComeQuicklyThenAtTheInterval(t *testing.T) {
	inBubble(t, func(b *bench) {
		began := time.Now()
		var at []time.Duration
		var healthy atomic.Bool
		b.Add(b.Context(), key(1), target(func(context.Context) error {
			at = append(at, time.Since(began))
			if healthy.Load() {
				return nil
			}
			return errors.New("not yet")
		}))
		b.pass(300 * time.Millisecond)
		healthy.Store(true)
		b.pass(3 * time.Second)
		want := []int{0, 20, 50, 95, 162, 263} // +20, then half as much again each time
		for i, ms := range want {
			if got := int(at[i].Milliseconds()); got != ms {
				t.Fatalf("probes at %v, want %v ms", at, want)
			}
		}
		last := at[len(at)-1] - at[len(at)-2]
		if last != time.Second {
			t.Errorf("once healthy, probes are %v apart", last)
		}
	})
}

func TestItTakesSoManyVerdictsInARow(t *testing.T) {
	inBubble(t, func(b *bench) {
		var fails atomic.Bool
		check := target(func(context.Context) error {
			if fails.Load() {
				return errors.New("no")
			}
			return nil
		})
		check.Healthy = 2
		b.Add(b.Context(), key(1), check)
		if got := b.pass(10 * time.Millisecond); len(got) != 0 {
			t.Errorf("healthy after one success: %v", got)
		}
		if got := b.pass(time.Second); len(got) != 1 || !got[0].Healthy {
			t.Errorf("after two successes: %v", got)
		}
		fails.Store(true)
		if got := b.pass(2 * time.Second); len(got) != 0 {
			t.Errorf("after two failures: %v", got)
		}
		if got := b.pass(time.Second); len(got) != 1 || got[0].Healthy || got[0].Detail != "no" {
			t.Errorf("after three failures: %v", got)
		}
		fails.Store(false)
		b.pass(500 * time.Millisecond)
		fails.Store(true)
		if got := b.pass(5 * time.Second); len(got) != 0 {
			t.Errorf("one success among failures: %v", got)
		}
	})
}

func TestAReasonIsToldOnce(t *testing.T) {
	inBubble(t, func(b *bench) {
		var reason atomic.Value
		reason.Store("connection refused")
		b.Add(b.Context(), key(1), target(func(context.Context) error { return errors.New(reason.Load().(string)) }))
		if got := b.pass(5 * time.Second); len(got) != 1 || got[0].Detail != "connection refused" {
			t.Errorf("told %v", got)
		}
		reason.Store("GET / answered 503")
		if got := b.pass(5 * time.Second); len(got) != 1 || got[0].Detail != "GET / answered 503" {
			t.Errorf("told %v", got)
		}
	})
}

func TestAProbeThatHangsFailsAndHoldsUpNoOther(t *testing.T) {
	inBubble(t, func(b *bench) {
		for i := range int64(10) {
			b.Add(b.Context(), key(i+1), target(func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			}))
		}
		b.Add(b.Context(), key(99), target(func(context.Context) error { return nil }))
		got := b.pass(100 * time.Millisecond)
		if len(got) != 1 || got[0].ID != key(99) || !got[0].Healthy {
			t.Errorf("told %v", got)
		}
		if got := b.pass(time.Second); len(got) != 10 || got[0].Detail != "no answer within the timeout" {
			t.Errorf("told %v", got)
		}
	})
}

func TestAnEngineThatIsAwaySaysNothingOfTheContainer(t *testing.T) {
	inBubble(t, func(b *bench) {
		check := target(func(context.Context) error { return fmt.Errorf("no engine: %w", errdefs.ErrUnavailable) })
		check.WasHealthy = true
		b.Add(b.Context(), key(1), check)
		for _, got := range b.pass(time.Minute) {
			if !got.Unknown {
				t.Errorf("told %v", got)
			}
		}
		if check := b.NodeCheck(b.Context()); check != "" {
			t.Errorf("the engine is not the prober's: %q", check)
		}
	})
}

// A lack of file descriptors is reported for the node, not for a container.
func TestALackOfDescriptorsSaysNothingOfTheContainer(t *testing.T) {
	inBubble(t, func(b *bench) {
		var lacking atomic.Bool
		lacking.Store(true)
		check := target(health.Exec([]string{"check"}, func(context.Context, []string) (int, error) {
			if lacking.Load() {
				return 0, &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}
			}
			return 0, nil
		}))
		check.WasHealthy = true
		b.Add(b.Context(), key(1), check)
		told := b.pass(time.Minute)
		for _, got := range told {
			if !got.Unknown {
				t.Errorf("told %v", got)
			}
		}
		if len(told) < 50 {
			t.Errorf("that nothing can be learned was told %d times in a minute", len(told))
		}
		if check := b.NodeCheck(b.Context()); check != "containers cannot be probed: too many open files" {
			t.Errorf("the node says %q", check)
		}
		lacking.Store(false)
		b.pass(11 * time.Second)
		if check := b.NodeCheck(b.Context()); check != "" {
			t.Errorf("once it is over the node says %q", check)
		}
	})
}

// However many probes of one app hang, the probes of other apps run in time and, after a second, also other probes of the same app.
func TestProbesThatHangHoldUpNoOther(t *testing.T) {
	for name, exec := range map[string]bool{"connections": false, "commands": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				for i := range int64(256) {
					hanging := target(func(ctx context.Context) error {
						<-ctx.Done()
						return ctx.Err()
					})
					hanging.Timeout, hanging.Exec = time.Minute, exec
					b.Add(b.Context(), key(i+1), hanging)
				}
				b.pass(0)
				other := key(1)
				other.App.Seq = 2
				quick := target(func(context.Context) error { return nil })
				quick.Exec = exec
				b.Add(b.Context(), other, quick)
				if got := b.pass(0); len(got) != 1 || got[0].ID != other || !got[0].Healthy {
					t.Errorf("another app's first probe: %v", got)
				}
				b.Add(b.Context(), key(1000), quick)
				if got := b.pass(80 * time.Second); !slices.ContainsFunc(got, func(v health.Verdict) bool { return v.ID == key(1000) && v.Healthy }) {
					t.Errorf("the app's own first probe: %v", got)
				}
			})
		})
	}
}

func TestWhatRunsOfAProbeThatWasRemovedIsHurried(t *testing.T) {
	inBubble(t, func(b *bench) {
		ended := make(chan struct{})
		hanging := target(func(ctx context.Context) error {
			<-ctx.Done()
			close(ended)
			return ctx.Err()
		})
		hanging.Timeout = time.Hour
		b.Add(b.Context(), key(1), hanging)
		b.pass(time.Second)
		b.Remove(b.Context(), key(1))
		select {
		case <-ended:
		case <-time.After(time.Second):
			t.Error("it goes on")
		}
	})
}

func TestANodeSaysThatItsFilesRunOut(t *testing.T) {
	for _, c := range []struct {
		limit, used int
		err         error
		want        string
	}{
		{1024, 900, nil, ""},
		{1024, 980, nil, "its NodeManager has opened nearly all of the 1024 files that it may; raise its limit (ulimit -n), or close connections to it"},
		{256, 240, nil, ""},
		{256, 250, nil, "its NodeManager has opened nearly all of the 256 files that it may; raise its limit (ulimit -n), or close connections to it"},
		{256, 0, syscall.EMFILE, "its NodeManager cannot open another file: too many open files"},
		{256, 0, errors.New("no such folder"), ""},
	} {
		check := health.Descriptors(func() (int, error) { return c.limit, nil }, func() (int, error) { return c.used, c.err })
		if got := check(t.Context()); got != c.want {
			t.Errorf("%d of %d: %q, want %q", c.used, c.limit, got, c.want)
		}
	}
}

func TestWhatWasRemovedIsNotProbed(t *testing.T) {
	inBubble(t, func(b *bench) {
		var probes atomic.Int64
		b.Add(b.Context(), key(1), target(func(context.Context) error { probes.Add(1); return nil }))
		b.pass(5 * time.Second)
		b.Remove(b.Context(), key(1))
		b.Remove(b.Context(), key(2))
		b.pass(0)
		before := probes.Load()
		b.pass(time.Minute)
		if after := probes.Load(); after != before {
			t.Errorf("probed %d times after it was removed", after-before)
		}
	})
}

func TestAThousandContainersAreProbedEachSecond(t *testing.T) {
	inBubble(t, func(b *bench) {
		var probes atomic.Int64
		for i := range int64(1000) {
			b.Add(b.Context(), key(i+1), target(func(context.Context) error { probes.Add(1); return nil }))
		}
		if got := b.pass(100 * time.Millisecond); len(got) != 1000 {
			t.Errorf("%d became healthy", len(got))
		}
		before := probes.Load()
		b.pass(10 * time.Second)
		if n := probes.Load() - before; n != 10_000 {
			t.Errorf("%d probes in 10 s", n)
		}
	})
}

func TestHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
		case "/moved":
			w.WriteHeader(http.StatusFound)
		case "/query":
			if r.URL.RawQuery != "a=b" {
				w.WriteHeader(http.StatusBadRequest)
			}
		case "/long":
			_, _ = w.Write(make([]byte, 1<<20))
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	for path, want := range map[string]string{
		"/ok": "", "/moved": "", "/query?a=b": "", "/long": "", "/sick": "GET /sick answered 503",
	} {
		got := ""
		if err := health.HTTP(address, path)(t.Context()); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestChecksOfWhatDoesNotAnswerAsItShould(t *testing.T) {
	serve := func(answer string) string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				request := make([]byte, 1024)
				_, _ = conn.Read(request)
				_, _ = conn.Write([]byte(answer))
				_ = conn.Close()
			}
		}()
		return listener.Addr().String()
	}
	silent := serve("")
	if err := health.HTTP(silent, "/")(t.Context()); err == nil || err.Error() != "GET /: the connection was closed without an answer" {
		t.Errorf("a silent server: %v", err)
	}
	if err := health.TCP(silent)(t.Context()); err != nil {
		t.Errorf("tcp: %v", err)
	}
	if err := health.HTTP(serve("SSH-2.0-OpenSSH\r\n"), "/")(t.Context()); err == nil || err.Error() != "GET /: the answer is not HTTP" {
		t.Errorf("another protocol: %v", err)
	}
	const address = "127.70.0.1:7070" // a port of an address that nobody uses
	for _, check := range []health.Check{health.HTTP(address, "/"), health.TCP(address)} {
		if err := check(t.Context()); err == nil || err.Error() != "connect to "+address+": connection refused" {
			t.Errorf("nobody there: %v", err)
		}
	}
	hanging, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hanging.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := health.HTTP(hanging.Addr().String(), "/")(ctx); err == nil {
		t.Error("a server that hangs passed")
	}
}

func TestExec(t *testing.T) {
	run := func(code int, err error) health.Check {
		return health.Exec([]string{"check", "-x"}, func(context.Context, []string) (int, error) { return code, err })
	}
	if err := run(0, nil)(t.Context()); err != nil {
		t.Errorf("exit 0: %v", err)
	}
	if err := run(3, nil)(t.Context()); err == nil || err.Error() != "check exited with code 3" {
		t.Errorf("exit 3: %v", err)
	}
	if err := run(0, errdefs.ErrUnavailable)(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("no engine: %v", err)
	}
}

func TestTheNodeTellsWhatIsWrongAndThatItIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		free, docker := int64(100<<30), ""
		set := func(f int64, d string) {
			mu.Lock()
			defer mu.Unlock()
			free, docker = f, d
		}
		checks := []health.NodeCheck{
			health.Disk("/data", func(string) (int64, int64, error) {
				mu.Lock()
				defer mu.Unlock()
				return free, 200 << 30, nil
			}),
			func(context.Context) string {
				mu.Lock()
				defer mu.Unlock()
				return docker
			},
		}
		var told []string
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			health.WatchNode(ctx, time.Second, checks, func(reason string) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, reason)
			})
			close(done)
		}()
		step := func(want ...string) {
			t.Helper()
			<-time.After(3 * time.Second)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if fmt.Sprint(told) != fmt.Sprint(want) {
				t.Errorf("told %q, want %q", told, want)
			}
			told = nil
		}
		step("")
		set(100<<30, "docker does not answer")
		step("docker does not answer")
		step()
		set(20<<20, "docker does not answer")
		step("the disk of /data is nearly full: 20MiB of 200GiB are free")
		set(100<<30, "")
		step("")
		cancel()
		<-done
	})
}

func TestAClockThatJumpsIsNotTrustedForAWhile(t *testing.T) {
	now, elapsed := time.Unix(1000, 0), time.Duration(0)
	check := health.Clock(func() time.Time { return now }, func() time.Duration { return elapsed })
	step := func(jump time.Duration) string {
		now, elapsed = now.Add(time.Second+jump), elapsed+time.Second
		return check(t.Context())
	}
	if got := step(0); got != "" {
		t.Errorf("a clock that runs: %q", got)
	}
	if got := step(2 * time.Second); got != "" {
		t.Errorf("a small step: %q", got)
	}
	if got := step(time.Hour); got != "the clock jumped by 1h0m0s" {
		t.Errorf("a jump: %q", got)
	}
	for range 29 {
		if got := step(0); got == "" {
			t.Fatal("trusted again too soon")
		}
	}
	if got := step(0); got != "" {
		t.Errorf("after half a minute: %q", got)
	}
}
