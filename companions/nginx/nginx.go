// Package nginx keeps an nginx in step with the zone: it renders the whole configuration, has nginx check it,
// puts it in place, reloads, and reports what is applied once no worker routes by anything older.
package nginx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/companions/balancer"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// New returns the companion of one nginx; the connection leads to the ResourceManager.
func New(config Config, conn grpc.ClientConnInterface) (*Companion, error) {
	proxy, err := NewProxy(config)
	if err != nil {
		return nil, err
	}
	config = proxy.config
	follow, err := balancer.New(balancer.Config{
		Name: config.Name, LostAfter: config.LostAfter, Leave: config.StopOnExit,
		Applied: config.Applied, Log: config.Log,
	}, conn, proxy)
	if err != nil {
		return nil, err
	}
	return &Companion{proxy: proxy, follow: follow}, nil
}

// Companion keeps one nginx in step with the zone.
type Companion struct {
	proxy  *Proxy
	follow *balancer.Companion
}

// Run keeps nginx in step until ctx ends. It fails at once if nginx cannot be run, or if another companion keeps
// the same folder.
func (c *Companion) Run(ctx context.Context) error {
	defer c.proxy.Close()
	return c.follow.Run(ctx)
}

// Proxy is one nginx.
type Proxy struct {
	config   Config
	settings settings
	// What is this companion's alone: its folder, and the file that it adds to an nginx that others run.
	locks []*os.File
	// The master process; zero before Start.
	pid int
	// How long a master that has started may take to be seen.
	startLimit time.Duration
	// How many workers it has.
	expected int
	traffic  traffic
	// Ports that the running nginx listens on for TCP services.
	tcp map[int32]bool
	// The revision that is known to run; empty if that is not sure.
	revision string
	// Workers of before that are no children of the master.
	orphaned []int
	// When it was reloaded last; zero if this companion has not done so yet.
	reloaded time.Time
}

// NewProxy returns an nginx that has yet to be started.
func NewProxy(config Config) (*Proxy, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(config.Listen)
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	p := &Proxy{config: config, startLimit: reloadLimit, expected: config.Workers, tcp: map[int32]bool{}, settings: settings{
		Dir: config.Dir, Listen: config.Listen, TLS: config.TLS, Host: host, Workers: config.Workers, Connections: balancer.Connections(),
		ShutdownSeconds: int(config.KeepOld.Seconds()), OwnTemp: true, Attached: config.Attach != nil,
	}}
	p.traffic.note, p.traffic.errors = p.path("traffic"), p.path("error.log")
	return p, nil
}

// oldest is the first nginx that is known to do all that is asked of it.
var oldest = [3]int{1, 19, 4}

// inspect finds out what the program can do.
func (p *Proxy) inspect(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, p.config.Program, "-V").CombinedOutput()
	if err != nil {
		return fmt.Errorf("nginx cannot be run as %q (install the package nginx, or name the program): %w: %w", p.config.Program, err, errdefs.ErrFailedPrecondition)
	}
	var version [3]int
	if found := versionPattern.FindStringSubmatch(string(out)); found != nil {
		for i := range version {
			version[i], _ = strconv.Atoi(found[i+1])
		}
	}
	if older(version, oldest) {
		return fmt.Errorf("%q is nginx %d.%d.%d, but at least %d.%d.%d is needed: %w", p.config.Program,
			version[0], version[1], version[2], oldest[0], oldest[1], oldest[2], errdefs.ErrFailedPrecondition)
	}
	p.settings.StreamModule = noStream
	switch text := string(out); {
	case strings.Contains(text, "--with-stream=dynamic"):
		folder := "/usr/lib/nginx/modules"
		if found := modulesPattern.FindStringSubmatch(text); found != nil {
			folder = found[1]
		}
		module := filepath.Join(folder, "ngx_stream_module.so")
		if _, err := os.Stat(module); err == nil {
			p.settings.StreamModule = module
		}
	case strings.Contains(text, "--with-stream "):
		p.settings.StreamModule = ""
	}
	if p.config.Attach != nil {
		p.expected = p.foreignWorkers()
	}
	if os.Geteuid() == 0 {
		for _, name := range []string{"www-data", "nginx", "nobody"} {
			if _, err := user.Lookup(name); err == nil {
				p.settings.User = name
				break
			}
		}
		// Workers are another user then, and may not be able to reach Dir; nginx's own place is made for them.
		if found := bodyPattern.FindStringSubmatch(string(out)); found != nil {
			if _, err := os.Stat(filepath.Dir(found[1])); err == nil {
				p.settings.OwnTemp = false
			}
		}
	}
	return nil
}

// foreignWorkers is how many workers an nginx has that others configure.
func (p *Proxy) foreignWorkers() int {
	text, err := os.ReadFile(p.config.Attach.Config)
	found := workersPattern.FindSubmatch(text)
	if err != nil || found == nil {
		return 1
	}
	if number, err := strconv.Atoi(string(found[1])); err == nil {
		return number
	}
	return runtime.NumCPU()
}

const noStream = "-"

var (
	versionPattern = regexp.MustCompile(`nginx version: [^/\n]*/(\d+)\.(\d+)\.(\d+)`)
	modulesPattern = regexp.MustCompile(`--modules-path=(\S+)`)
	workersPattern = regexp.MustCompile(`(?m)^\s*worker_processes\s+(\w+)\s*;`)
	bodyPattern    = regexp.MustCompile(`--http-client-body-temp-path=(\S+)`)
)

func older(a, b [3]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

func (p *Proxy) path(name string) string { return filepath.Join(p.config.Dir, name) }

// prepare takes the folder for this companion alone, and finds out what the program can do.
func (p *Proxy) prepare(ctx context.Context) error {
	if p.locks != nil {
		return nil
	}
	if err := p.take(); err != nil {
		p.letGo()
		return err
	}
	if err := os.MkdirAll(p.path("temp"), 0o755); err != nil {
		p.letGo()
		return fmt.Errorf("making nginx's folder: %w", err)
	}
	if err := p.inspect(ctx); err != nil {
		p.letGo()
		return err
	}
	if err := p.traffic.listen(); err != nil {
		p.letGo()
		return err
	}
	p.settings.Hearer, p.settings.Mark = p.traffic.address(), p.traffic.mark
	return nil
}

// take takes what must be no other companion's.
func (p *Proxy) take() error {
	lock, err := balancer.LockFolder(p.config.Dir)
	if err != nil {
		return err
	}
	p.locks = append(p.locks, lock)
	if p.config.Attach == nil {
		return nil
	}
	lock, err = balancer.Lock(p.config.Attach.Include + ".lock")
	if errdefs.IsFailedPrecondition(err) {
		return fmt.Errorf("another companion keeps %s; end it, an nginx takes one companion: %w", p.config.Attach.Include, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return err
	}
	p.locks = append(p.locks, lock)
	return nil
}

func (p *Proxy) letGo() {
	for _, lock := range p.locks {
		_ = lock.Close()
	}
	p.locks = nil
}

// Start makes sure that nginx runs: one that does is taken over as it is, else it is started with the last good
// configuration.
func (p *Proxy) Start(ctx context.Context) error {
	if err := p.prepare(ctx); err != nil {
		return err
	}
	p.revision = ""
	if pid := p.master(); pid != 0 {
		p.pid = pid
		p.findOrphaned()
		return nil
	}
	if p.config.Attach != nil {
		return fmt.Errorf("the nginx of %s does not run; start it, the companion only adds to it: %w", p.config.Attach.Pid, errdefs.ErrUnavailable)
	}
	if err := p.restore(ctx); err != nil {
		return err
	}
	return p.launch(ctx)
}

// restore sees to it that the configuration in place is one that nginx takes: the last one, else the one before it,
// else one that routes nothing. A machine that lost its power may have left a torn file, and a certificate that
// was there may be gone.
func (p *Proxy) restore(ctx context.Context) error {
	current, good := p.path("nginx.conf"), p.path("nginx.conf.good")
	for _, candidate := range []string{current, good} {
		if _, err := os.Stat(candidate); err != nil || p.test(ctx, candidate) != nil {
			continue
		}
		if candidate == good {
			return os.Rename(good, current)
		}
		return nil
	}
	text, _ := render(p.settings, &balancer.Plan{})
	if err := balancer.WriteFile(current, []byte(text)); err != nil {
		return err
	}
	return p.test(ctx, current)
}

// launch starts nginx with the configuration that is in place.
func (p *Proxy) launch(ctx context.Context) error {
	p.endOrphans(ctx)
	// A master that was killed leaves its socket behind, and nginx does not bind over it.
	_ = os.Remove(p.path("status.sock"))
	_ = os.Remove(p.path("nginx.pid"))
	command := exec.CommandContext(ctx, p.config.Program, "-p", p.config.Dir, "-c", p.path("nginx.conf"), "-e", p.path("error.log"))
	// Its working folder marks its processes as ours.
	command.Dir = p.config.Dir
	out, err := balancer.Launch(command, p.path("start.out"))
	if err != nil {
		if why := complaint(out); why != "" {
			return fmt.Errorf("nginx did not start: %s: %w", why, errdefs.ErrUnavailable)
		}
		return fmt.Errorf("nginx did not start: %s: %w", balancer.LastLine(out, err), errdefs.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.startLimit, fmt.Errorf("nginx has ended right after its start: %w", errdefs.ErrUnavailable))
	defer cancel()
	for ctx.Err() == nil {
		if pid := p.master(); pid != 0 {
			p.pid = pid
			p.findOrphaned()
			return nil
		}
		balancer.Pause(ctx, 2*time.Millisecond)
	}
	return context.Cause(ctx)
}

// Alive reports whether the master runs.
func (p *Proxy) Alive() bool { return p.pid != 0 && p.isOurs(p.pid) }

// Close lets go of the folder, and ends nginx if it is to end with its companion.
func (p *Proxy) Close() {
	if p.locks == nil {
		return
	}
	switch {
	case p.config.Attach != nil:
		if p.config.StopOnExit || p.config.Over != nil && p.config.Over() {
			p.detach()
		}
	case p.config.StopOnExit:
		End(p.config.Dir)
		balancer.AwaitEnd(p.Alive)
	}
	p.traffic.close()
	p.letGo()
}

// detach takes the companion's file away from an nginx that others run.
func (p *Proxy) detach() {
	if err := os.Remove(p.config.Attach.Include); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.config.Log.Warn("the companion's file stays in an nginx of others", "file", p.config.Attach.Include, "error", err)
		return
	}
	if p.Alive() {
		_ = syscall.Kill(p.pid, syscall.SIGHUP)
	}
	_ = os.Remove(p.config.Attach.Include + ".lock") // nothing is done any more that it keeps others from
}

// Apply makes nginx route by routes. If they need another configuration, nginx is reloaded; otherwise there is
// nothing to do.
func (p *Proxy) Apply(ctx context.Context, routes map[string]balancer.Route) ([]*companionv1.Refusal, error) {
	plan, refusals := balancer.MakePlan(routes, balancer.Limits{Certificates: p.certificates(), TCP: p.refuseTCP})
	text, revision := render(p.settings, plan)
	if !p.Alive() {
		if err := p.Start(ctx); err != nil {
			return nil, err
		}
	}
	p.traffic.routes(plan)
	if p.revision == revision || p.revision == "" && p.runs(ctx, revision) {
		p.settled(plan, revision)
		return refusals, nil
	}
	began := time.Now()
	if err := p.place(ctx, plan, text); err != nil {
		return nil, err
	}
	p.reloaded = began
	if err := p.reload(ctx, revision); err != nil {
		p.takeBack()
		return nil, err
	}
	p.settled(plan, revision)
	return refusals, nil
}

// place has nginx check a configuration and puts it where nginx reads it; what was there is kept.
func (p *Proxy) place(ctx context.Context, plan *balancer.Plan, text string) error {
	candidate := p.path("nginx.conf.new")
	alone := text
	if p.config.Attach != nil {
		// As one file among others it can be checked only in its place: first it is checked alone.
		whole := p.settings
		whole.Attached = false
		alone, _ = render(whole, plan)
	}
	if err := balancer.WriteFile(candidate, []byte(alone)); err != nil {
		return err
	}
	if err := p.test(ctx, candidate); err != nil {
		return err
	}
	if p.config.Attach != nil {
		candidate = p.config.Attach.Include + ".new"
		if err := p.include(candidate, []byte(text)); err != nil {
			return err
		}
	}
	current, good := p.current(), p.path("nginx.conf.good")
	_ = os.Remove(good)
	if before, err := os.ReadFile(current); err == nil {
		if err := os.WriteFile(good, before, 0o600); err != nil {
			return fmt.Errorf("keeping the last good configuration: %w", err)
		}
	}
	if err := os.Rename(candidate, current); err != nil {
		return fmt.Errorf("putting the configuration in place: %w", err)
	}
	if p.config.Attach != nil {
		if err := p.test(ctx, p.config.Attach.Config); err != nil {
			p.takeBack()
			return err
		}
	}
	return nil
}

// include writes a file that nginx reads. One that others run may do so as another user: who may read its configuration may
// read this file.
func (p *Proxy) include(path string, text []byte) error {
	if err := balancer.WriteFile(path, text); err != nil || p.config.Attach == nil {
		return err
	}
	beside, err := os.Stat(p.config.Attach.Config)
	if err == nil && os.Geteuid() == 0 {
		owner := beside.Sys().(*syscall.Stat_t)
		err = os.Chown(path, int(owner.Uid), int(owner.Gid))
	}
	if err == nil {
		err = os.Chmod(path, beside.Mode().Perm())
	}
	if err != nil {
		return fmt.Errorf("letting nginx read the companion's file: %w", err)
	}
	return nil
}

// takeBack puts back what was in place before.
func (p *Proxy) takeBack() {
	p.revision = ""
	before, err := os.ReadFile(p.path("nginx.conf.good"))
	if err != nil {
		_ = os.Remove(p.current())
		return
	}
	if p.include(p.current()+".new", before) == nil {
		_ = os.Rename(p.current()+".new", p.current())
	}
}

// current is the file that nginx reads.
func (p *Proxy) current() string {
	if p.config.Attach != nil {
		return p.config.Attach.Include
	}
	return p.path("nginx.conf")
}

// Traffic is what nginx has counted since the last call. It keeps the log of errors small, too.
func (p *Proxy) Traffic() []*companionv1.Traffic {
	if size(p.path("error.log")) >= largestLog && p.Alive() {
		_ = os.Rename(p.path("error.log"), p.path("error.log.1"))
		_ = syscall.Kill(p.pid, syscall.SIGUSR1)
	}
	return p.traffic.take()
}

func (p *Proxy) settled(plan *balancer.Plan, revision string) {
	p.revision = revision
	clear(p.tcp)
	for _, tcp := range plan.TCP {
		p.tcp[tcp.Listen] = true
	}
}

func (p *Proxy) certificates() string {
	if p.config.TLS == "" {
		return ""
	}
	return p.config.Certificates
}

// refuseTCP says why nginx cannot listen on a port. nginx itself would refuse the whole configuration.
func (p *Proxy) refuseTCP(port int32) string {
	if p.config.Attach != nil {
		return "an nginx that others run takes no tcp ports from the companion"
	}
	if p.settings.StreamModule == noStream {
		return "this nginx has no module for tcp ports (install the package libnginx-mod-stream)"
	}
	if p.tcp[port] {
		return ""
	}
	why := balancer.PortProblem(strings.Trim(p.settings.Host, "[]"), port)
	if why != "" && p.listens(port) {
		return ""
	}
	return why
}
