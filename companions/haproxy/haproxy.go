// Package haproxy manages a HAProxy as a balancer of the zone. Instances and weights are changed through its runtime
// interface without a reload; changes of hosts, paths and ports need one.
//
// A Proxy owns a folder, under a lock: the configuration, the sockets and the state of the HAProxy that runs there. Package balancer
// tells it what to route.
package haproxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/mammoth-os/mammoth/companions/balancer"
	"github.com/mammoth-os/mammoth/internal/spec"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// Config is the configuration of one HAProxy and its companion.
type Config struct {
	// The balancer's name in the zone; default "haproxy".
	Name string
	// Folder of this HAProxy's configuration and sockets, for this HAProxy alone.
	Dir string
	// Front address of HTTP, host:port.
	Listen string
	// Front address of TLS, host:port; empty is none.
	TLS string
	// Folder of certificates, NAME.crt and NAME.key; empty is none.
	Certificates string
	// The program; default "haproxy" on the path.
	Program string
	// How long the zone waits for this balancer when its connection is lost; default 30s.
	LostAfter time.Duration
	// How long an old process may finish its connections after a reload; default balancer.DefaultKeepOld.
	KeepOld time.Duration
	// How many old processes may run; the oldest are ended first. Default 32, and fewer if they take more than half of the memory.
	MaxOld int
	// End HAProxy with the companion. Otherwise it keeps serving.
	StopOnExit bool
	// Applied is called once the zone's routes are applied for the first time; may be nil.
	Applied func()
	Log     *slog.Logger
}

// Validate sets defaults and returns what is wrong.
func (c *Config) Validate() error {
	defaultTo(&c.Name, "haproxy")
	defaultTo(&c.Program, "haproxy")
	defaultTo(&c.LostAfter, 30*time.Second)
	defaultTo(&c.KeepOld, balancer.DefaultKeepOld)
	defaultTo(&c.MaxOld, 32)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	for _, path := range []string{c.Dir, c.Certificates} {
		if err := spec.CheckPlainPath(filepath.Clean(path)); path != "" && err != nil {
			return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	switch {
	case c.Dir == "":
		return fmt.Errorf("the haproxy companion needs a folder of its own: %w", errdefs.ErrInvalidArgument)
	case c.LostAfter < 0:
		return fmt.Errorf("the time that the zone waits must not be negative: %w", errdefs.ErrInvalidArgument)
	case c.KeepOld < time.Second || c.MaxOld < 1:
		return fmt.Errorf("keepOld must be at least 1s and maxOld at least 1: %w", errdefs.ErrInvalidArgument)
	case c.TLS != "" && c.Certificates == "":
		return fmt.Errorf("serving TLS on %s needs a folder of certificates: %w", c.TLS, errdefs.ErrInvalidArgument)
	}
	for _, address := range []string{c.Listen, c.TLS} {
		if err := balancer.CheckFrontAddress(address); err != nil && (address != "" || c.Listen == "") {
			return err
		}
	}
	return nil
}

func defaultTo[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// New returns the companion of one HAProxy; the connection leads to the ResourceManager.
func New(config Config, conn grpc.ClientConnInterface) (*Companion, error) {
	proxy, err := NewProxy(config)
	if err != nil {
		return nil, err
	}
	config = proxy.config
	follow, err := balancer.New(balancer.Config{
		Name: config.Name, LostAfter: config.LostAfter, LeaveOnExit: config.StopOnExit, Applied: config.Applied, Log: config.Log,
	}, conn, proxy)
	if err != nil {
		return nil, err
	}
	return &Companion{proxy: proxy, follow: follow}, nil
}

// Companion manages one HAProxy.
type Companion struct {
	proxy  *Proxy
	follow *balancer.Companion
}

// Run manages HAProxy until ctx ends. It fails at once if HAProxy cannot be run, or if another companion uses the folder.
func (c *Companion) Run(ctx context.Context) error {
	defer c.proxy.Close()
	return c.follow.Run(ctx)
}

// Proxy is one HAProxy.
type Proxy struct {
	config   Config
	settings settings
	lock     *os.File
	pid      int
	// startTimeout is how long a process that was started may take to appear.
	startTimeout time.Duration
	counts       map[string]counts
	tcp          map[int32]bool
	// Older processes than the newest one; some may have ended.
	before  []int
	closing closing
	// The shape of the configuration that was applied last, and the time of the last reload.
	applied  string
	reloaded time.Time
}

// NewProxy returns a HAProxy that was not started yet.
func NewProxy(config Config) (*Proxy, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(config.Listen)
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return &Proxy{config: config, startTimeout: reloadTimeout, counts: map[string]counts{}, tcp: map[int32]bool{}, closing: closing{}, settings: settings{
		Dir: config.Dir, Listen: config.Listen, TLS: config.TLS, Host: host, StopAfter: int(config.KeepOld.Seconds()),
		Connections: balancer.MaxConnections(),
	}}, nil
}

func (p *Proxy) path(name string) string { return filepath.Join(p.config.Dir, name) }

var versionPattern = regexp.MustCompile(`version (\d+)\.(\d+)`)

// prepare locks the folder, and examines the program.
func (p *Proxy) prepare(ctx context.Context) error {
	if p.lock != nil {
		return nil
	}
	lock, err := balancer.LockFolder(p.config.Dir)
	if err != nil {
		return err
	}
	if err := p.setUp(ctx); err != nil {
		_ = lock.Close()
		return err
	}
	p.lock = lock
	return nil
}

func (p *Proxy) setUp(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, p.config.Program, "-v").CombinedOutput()
	if err != nil {
		return fmt.Errorf("HAProxy cannot be run as %q (install the package haproxy, or name the program): %w: %w", p.config.Program, err, errdefs.ErrFailedPrecondition)
	}
	found := versionPattern.FindStringSubmatch(string(out))
	if found == nil {
		return fmt.Errorf("%q does not say which version of HAProxy it is; at least 2.6 is needed: %w", p.config.Program, errdefs.ErrFailedPrecondition)
	}
	major, _ := strconv.Atoi(found[1])
	minor, _ := strconv.Atoi(found[2])
	if major < 2 || major == 2 && minor < 6 {
		return fmt.Errorf("%q is HAProxy %d.%d, but at least 2.6 is needed: %w", p.config.Program, major, minor, errdefs.ErrFailedPrecondition)
	}
	if os.Geteuid() == 0 {
		for _, name := range []string{"haproxy", "nobody"} {
			if _, err := user.Lookup(name); err == nil {
				p.settings.User = name
				break
			}
		}
	}
	secret, err := os.ReadFile(p.path("cookie.secret"))
	if errors.Is(err, os.ErrNotExist) {
		random := make([]byte, 16)
		_, _ = rand.Read(random)
		secret = []byte(hex.EncodeToString(random))
		err = os.WriteFile(p.path("cookie.secret"), secret, 0o600)
	}
	if err != nil {
		return fmt.Errorf("store the secret of sticky cookies: %w", err)
	}
	p.settings.DynamicCookieSecret = string(secret)
	return balancer.WriteFile(p.path("503.http"), []byte(unavailable))
}

// Start takes over a running HAProxy as it is, or starts it with the last good configuration.
func (p *Proxy) Start(ctx context.Context) error {
	if err := p.prepare(ctx); err != nil {
		return err
	}
	// The processes of the machine are listed only at the start and at the end. Between them, before is kept up to date.
	p.before = p.processes()
	if pid := p.process(); pid != 0 {
		p.pid = pid
		return p.supersede(p.old()...)
	}
	if _, err := os.Stat(p.path("haproxy.cfg")); errors.Is(err, os.ErrNotExist) {
		if err := p.install(ctx, render(p.settings, &balancer.Plan{})); err != nil {
			return err
		}
	}
	_ = os.Remove(p.path("admin.sock"))
	return p.launch(ctx, 0)
}

// launch starts a process with the installed configuration. It takes over the sockets of an old one, whose process id is zero if there is
// none.
func (p *Proxy) launch(ctx context.Context, old int) error {
	arguments := []string{"-D", "-f", p.path("haproxy.cfg"), "-p", p.path("haproxy.pid")}
	if old != 0 {
		arguments = append(arguments, "-x", p.path("admin.sock"), "-sf", strconv.Itoa(old))
	}
	for {
		command := exec.CommandContext(ctx, p.config.Program, arguments...)
		command.Dir = p.config.Dir
		out, err := balancer.Launch(command, p.path("start.out"))
		if err == nil {
			break
		}
		// A HAProxy waits one second for the sockets of the one before, which may be kept waiting for the processor.
		if !bytes.Contains(out, []byte("Failed to get the sockets from the old process")) || ctx.Err() != nil {
			return fmt.Errorf("HAProxy did not start: %s: %w", firstError(out, err), errdefs.ErrUnavailable)
		}
		balancer.Pause(ctx, 100*time.Millisecond)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.startTimeout, fmt.Errorf("HAProxy has ended right after its start: %w", errdefs.ErrUnavailable))
	defer cancel()
	for ctx.Err() == nil {
		if pid := p.process(); pid != 0 && pid != old {
			p.pid = pid
			return nil
		}
		balancer.Pause(ctx, 2*time.Millisecond)
	}
	return context.Cause(ctx)
}

// process is the running HAProxy's process id, zero if there is none.
func (p *Proxy) process() int {
	text, err := os.ReadFile(p.path("haproxy.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !p.isOurs(pid) {
		return 0
	}
	return pid
}

// isOurs reports whether a process is a HAProxy of this folder: the process id may have been reused.
func (p *Proxy) isOurs(pid int) bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	return err == nil && strings.Contains(string(text), "\x00"+p.path("haproxy.cfg")+"\x00") && !balancer.HasEnded(pid)
}

// Alive reports whether HAProxy runs.
func (p *Proxy) Alive() bool { return p.pid != 0 && p.isOurs(p.pid) }

// Close unlocks the folder, and ends HAProxy if StopOnExit is set.
func (p *Proxy) Close() {
	if p.lock == nil {
		return
	}
	if p.config.StopOnExit {
		processes := p.processes()
		balancer.EndOldest(processes, 0)
		balancer.AwaitEnd(func() bool { return slices.ContainsFunc(processes, p.isOurs) })
	}
	_ = p.lock.Close()
	p.lock = nil
}

// Apply applies routes through the runtime interface if only instances differ, else by a reload.
func (p *Proxy) Apply(ctx context.Context, routes map[string]balancer.Route) ([]*companionv1.Refusal, error) {
	plan, refusals := balancer.MakePlan(routes, p.limits())
	wanted := render(p.settings, plan)
	if !p.Alive() {
		if err := p.Start(ctx); err != nil {
			return nil, err
		}
	}
	if err := p.endClosing(ctx); err != nil {
		return nil, err
	}
	shape, err := p.shape(ctx)
	if err != nil {
		return nil, err
	}
	if shape != wanted.shape {
		if err := p.reload(ctx, wanted); err != nil {
			return nil, err
		}
	} else if err := p.updateServers(ctx, plan, wanted); err != nil {
		return nil, err
	}
	p.applied = wanted.shape
	clear(p.tcp)
	for _, tcp := range plan.TCP {
		p.tcp[tcp.Listen] = true
	}
	return refusals, nil
}

func (p *Proxy) limits() balancer.Limits {
	limits := balancer.Limits{TCP: p.refuseTCP}
	if p.config.TLS != "" {
		limits.Certificates = p.config.Certificates
	}
	return limits
}

// ReloadDelay is how long to wait before routes are applied that need a reload; zero for others.
func (p *Proxy) ReloadDelay(routes map[string]balancer.Route) time.Duration {
	since := time.Since(p.reloaded)
	if p.reloaded.IsZero() || since >= balancer.MaxReloadDelay {
		return 0
	}
	rest := balancer.ReloadDelay(interval, len(p.old()), balancer.MaxOldFor(p.config.MaxOld, p.pid)) - since
	if rest <= 0 {
		return 0
	}
	plan, _ := balancer.MakePlan(routes, p.limits())
	if render(p.settings, plan).shape == p.applied {
		return 0
	}
	return rest
}

// interval is the shortest time between two reloads.
const interval = time.Second

// processes lists every HAProxy of this folder.
func (p *Proxy) processes() []int {
	return slices.DeleteFunc(balancer.ListProcesses(), func(pid int) bool { return !p.isOurs(pid) })
}

// refuseTCP is why HAProxy cannot listen on a port. It would refuse the whole configuration.
func (p *Proxy) refuseTCP(port int32) string {
	if p.tcp[port] {
		return ""
	}
	why := balancer.CheckPort(strings.Trim(p.settings.Host, "[]"), port)
	if why != "" {
		text, _ := os.ReadFile(p.path("haproxy.cfg"))
		if p.Alive() && strings.Contains(string(text), fmt.Sprintf("bind %s:%d\n", p.settings.Host, port)) {
			return ""
		}
	}
	return why
}

// install lets HAProxy check a configuration and installs it.
func (p *Proxy) install(ctx context.Context, f files) error {
	for name, pair := range f.pairs {
		chain, err := os.ReadFile(pair.Chain)
		if err != nil {
			return fmt.Errorf("read the certificate %q: %w", name, err)
		}
		key, err := os.ReadFile(pair.Key)
		if err != nil {
			return fmt.Errorf("read the key of the certificate %q: %w", name, err)
		}
		if err := balancer.WriteFile(p.path("shape-"+f.shape+"-"+name+".pem"), append(append(chain, '\n'), key...)); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{"routes.map": f.routes, "hosts.map": f.hosts, "certificates.list": f.certificates} {
		if err := balancer.WriteFile(p.path("shape-"+f.shape+"-"+name), []byte(text)); err != nil {
			return err
		}
	}
	if err := balancer.WriteFile(p.path("haproxy.cfg.new"), []byte(f.config)); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, p.config.Program, "-c", "-f", p.path("haproxy.cfg.new")).CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("HAProxy has not checked the configuration in time: %w: %w", context.Cause(ctx), errdefs.ErrUnavailable)
	}
	if err != nil {
		return fmt.Errorf("HAProxy refuses the configuration: %s: %w", firstError(out, err), errdefs.ErrFailedPrecondition)
	}
	return os.Rename(p.path("haproxy.cfg.new"), p.path("haproxy.cfg"))
}

// deleteOld deletes the files of all configurations but one.
func (p *Proxy) deleteOld(shape string) {
	old, _ := filepath.Glob(p.path("shape-*"))
	for _, name := range old {
		if !strings.HasPrefix(filepath.Base(name), "shape-"+shape+"-") {
			_ = os.Remove(name)
		}
	}
}

func (p *Proxy) replace(name, text string) error {
	if err := balancer.WriteFile(p.path(name+".new"), []byte(text)); err != nil {
		return err
	}
	return os.Rename(p.path(name+".new"), p.path(name))
}

// firstError is the first error in HAProxy's output.
func firstError(out []byte, err error) string {
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "[ALERT]") {
			return strings.TrimSpace(line)
		}
	}
	return balancer.LastLine(out, err)
}
