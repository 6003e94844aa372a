// Package nginx manages an nginx as a balancer of the zone: it renders the whole configuration, lets nginx check it,
// installs it, reloads, and confirms it once no worker accepts requests with an older one.
//
// A Proxy owns a folder, under a lock, with the configuration and the nginx that runs there. With Attach nginx is somebody else's, and
// the Proxy owns one included file. Package balancer tells it what to route.
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
		Name: config.Name, LostAfter: config.LostAfter, LeaveOnExit: config.StopOnExit,
		Applied: config.Applied, Log: config.Log,
	}, conn, proxy)
	if err != nil {
		return nil, err
	}
	return &Companion{proxy: proxy, follow: follow}, nil
}

// Companion manages one nginx.
type Companion struct {
	proxy  *Proxy
	follow *balancer.Companion
}

// Run manages nginx until ctx ends. It fails at once if nginx cannot be run, or if another companion uses the folder.
func (c *Companion) Run(ctx context.Context) error {
	defer c.proxy.Close()
	return c.follow.Run(ctx)
}

// Proxy is one nginx.
type Proxy struct {
	config   Config
	settings settings
	// The locks of this companion: its folder, and the file that it adds to an attached nginx.
	locks []*os.File
	// The master process; zero before Start.
	pid int
	// startTimeout is how long a master that was started may take to appear.
	startTimeout time.Duration
	// How many workers it has.
	workerCount int
	traffic     traffic
	// Ports that the running nginx listens on for TCP services.
	tcp map[int32]bool
	// The revision that nginx runs; empty if unknown.
	revision string
	// Workers of an earlier master.
	orphaned []int
	// The time of the last reload; zero if this companion has not reloaded yet.
	reloaded time.Time
}

// NewProxy returns an nginx that was not started yet.
func NewProxy(config Config) (*Proxy, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(config.Listen)
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	p := &Proxy{config: config, startTimeout: reloadTimeout, workerCount: config.Workers, tcp: map[int32]bool{}, settings: settings{
		Dir: config.Dir, Listen: config.Listen, TLS: config.TLS, Host: host, Workers: config.Workers, Connections: balancer.MaxConnections(),
		ShutdownSeconds: int(config.KeepOld.Seconds()), OwnTemp: true, Attached: config.Attach != nil,
	}}
	p.traffic.stateFile, p.traffic.errors = p.path("traffic"), p.path("error.log")
	return p, nil
}

var (
	// minVersion is the first version with everything that the companion needs.
	minVersion = [3]int{1, 19, 4}
	// keepsIdleVersion is the first version with keepalive_min_timeout. Older ones close idle connections at once when they reload.
	keepsIdleVersion = [3]int{1, 27, 4}
)

// inspect examines the program.
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
	if older(version, minVersion) {
		return fmt.Errorf("%q is nginx %d.%d.%d, but at least %d.%d.%d is needed: %w", p.config.Program,
			version[0], version[1], version[2], minVersion[0], minVersion[1], minVersion[2], errdefs.ErrFailedPrecondition)
	}
	p.settings.KeepsIdle = !older(version, keepsIdleVersion)
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
		p.workerCount = p.foreignWorkers()
	}
	if os.Geteuid() == 0 {
		for _, name := range []string{"www-data", "nginx", "nobody"} {
			if _, err := user.Lookup(name); err == nil {
				p.settings.User = name
				break
			}
		}
		// Workers run as another user then, who may not reach Dir; nginx's own folder is writable for them.
		if found := bodyPattern.FindStringSubmatch(string(out)); found != nil {
			if _, err := os.Stat(filepath.Dir(found[1])); err == nil {
				p.settings.OwnTemp = false
			}
		}
	}
	return nil
}

// foreignWorkers is the number of workers of an attached nginx.
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

// prepare locks the folder, and examines the program.
func (p *Proxy) prepare(ctx context.Context) error {
	if p.locks != nil {
		return nil
	}
	if err := p.lock(); err != nil {
		p.unlock()
		return err
	}
	if err := os.MkdirAll(p.path("temp"), 0o755); err != nil {
		p.unlock()
		return fmt.Errorf("create nginx's folder: %w", err)
	}
	if err := p.inspect(ctx); err != nil {
		p.unlock()
		return err
	}
	if err := p.traffic.listen(); err != nil {
		p.unlock()
		return err
	}
	p.settings.TrafficAddress, p.settings.Mark = p.traffic.address(), p.traffic.mark
	return nil
}

// lock locks what other companions must not use.
func (p *Proxy) lock() error {
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
		return fmt.Errorf("another companion manages %s; end it, an nginx can have only one: %w", p.config.Attach.Include, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return err
	}
	p.locks = append(p.locks, lock)
	return nil
}

func (p *Proxy) unlock() {
	for _, lock := range p.locks {
		_ = lock.Close()
	}
	p.locks = nil
}

// Start takes over a running nginx as it is, or starts it with the last good configuration.
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
		return fmt.Errorf("the nginx of %s is not running; start it, the companion does not: %w", p.config.Attach.Pid, errdefs.ErrUnavailable)
	}
	if err := p.restore(ctx); err != nil {
		return err
	}
	return p.launch(ctx)
}

// restore installs a configuration that nginx accepts: the last one, else the one before it, else one that routes nothing.
// After a power failure a file may be torn, and a certificate may be gone.
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

// launch starts nginx with the installed configuration.
func (p *Proxy) launch(ctx context.Context) error {
	p.endOrphans(ctx)
	// A killed master leaves its socket behind, and nginx does not bind over it.
	_ = os.Remove(p.path("status.sock"))
	_ = os.Remove(p.path("nginx.pid"))
	command := exec.CommandContext(ctx, p.config.Program, "-p", p.config.Dir, "-c", p.path("nginx.conf"), "-e", p.path("error.log"))
	// Its working directory marks the processes of this companion.
	command.Dir = p.config.Dir
	out, err := balancer.Launch(command, p.path("start.out"))
	if err != nil {
		if why := firstError(out); why != "" {
			return fmt.Errorf("nginx did not start: %s: %w", why, errdefs.ErrUnavailable)
		}
		return fmt.Errorf("nginx did not start: %s: %w", balancer.LastLine(out, err), errdefs.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.startTimeout, fmt.Errorf("nginx has ended right after its start: %w", errdefs.ErrUnavailable))
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

// Close unlocks the folder, and ends nginx if StopOnExit is set.
func (p *Proxy) Close() {
	if p.locks == nil {
		return
	}
	switch {
	case p.config.Attach != nil:
		if p.config.StopOnExit || p.config.IsFinal != nil && p.config.IsFinal() {
			p.detach()
		}
	case p.config.StopOnExit:
		End(p.config.Dir)
		balancer.AwaitEnd(p.Alive)
	}
	p.traffic.close()
	p.unlock()
}

// detach removes the companion's file from an attached nginx.
func (p *Proxy) detach() {
	if err := os.Remove(p.config.Attach.Include); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.config.Log.Warn("cannot remove the companion's file from the attached nginx", "file", p.config.Attach.Include, "error", err)
		return
	}
	if p.Alive() {
		_ = syscall.Kill(p.pid, syscall.SIGHUP)
	}
	_ = os.Remove(p.config.Attach.Include + ".lock") // the lock is not needed any more
}

// Apply applies routes. nginx is reloaded if the configuration changes.
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
	if err := p.install(ctx, plan, text); err != nil {
		return nil, err
	}
	p.reloaded = began
	if err := p.reload(ctx, revision); err != nil {
		p.rollBack()
		return nil, err
	}
	p.settled(plan, revision)
	return refusals, nil
}

// install lets nginx check a configuration and installs it; the earlier one is kept.
func (p *Proxy) install(ctx context.Context, plan *balancer.Plan, text string) error {
	candidate := p.path("nginx.conf.new")
	alone := text
	if p.config.Attach != nil {
		// One file of an attached nginx can be checked only after its installation: it is first checked alone.
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
			return fmt.Errorf("keep the last good configuration: %w", err)
		}
	}
	if err := os.Rename(candidate, current); err != nil {
		return fmt.Errorf("install the configuration: %w", err)
	}
	if p.config.Attach != nil {
		if err := p.test(ctx, p.config.Attach.Config); err != nil {
			p.rollBack()
			return err
		}
	}
	return nil
}

// include writes a file for nginx. An attached nginx may run as another user: everybody who may read its configuration may
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
		return fmt.Errorf("make the companion's file readable for nginx: %w", err)
	}
	return nil
}

// rollBack installs the earlier configuration.
func (p *Proxy) rollBack() {
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

// Traffic returns the counts since the last call. It also limits the size of the error log.
func (p *Proxy) Traffic() []*companionv1.Traffic {
	if size(p.path("error.log")) >= maxLog && p.Alive() {
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

// refuseTCP is why nginx cannot listen on a port. nginx itself would refuse the whole configuration.
func (p *Proxy) refuseTCP(port int32) string {
	if p.config.Attach != nil {
		return "the companion cannot add tcp ports to an attached nginx"
	}
	if p.settings.StreamModule == noStream {
		return "this nginx has no module for tcp ports (install the package libnginx-mod-stream)"
	}
	if p.tcp[port] {
		return ""
	}
	why := balancer.CheckPort(strings.Trim(p.settings.Host, "[]"), port)
	if why != "" && p.listens(port) {
		return ""
	}
	return why
}
