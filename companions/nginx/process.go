package nginx

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/companions/balancer"
)

// How long a reload may take until the new workers accept requests and the old ones do not.
const reloadTimeout = 20 * time.Second

// reload loads the installed configuration, and returns once no worker accepts requests with an older one. Workers that
// finish earlier requests continue.
func (p *Proxy) reload(ctx context.Context, revision string) error {
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	p.awaitWorkers(ctx)
	p.limitOld()
	old := p.workers()
	log := size(p.path("error.log"))
	if err := syscall.Kill(p.pid, syscall.SIGHUP); err != nil {
		return fmt.Errorf("signal nginx to reload: %w", err)
	}
	for ctx.Err() == nil {
		if !p.Alive() {
			return fmt.Errorf("nginx ended while it was reloading: %w", errdefs.ErrUnavailable)
		}
		if problem := loggedError(p.path("error.log"), log); problem != "" {
			return fmt.Errorf("nginx did not load the configuration: %s: %w", problem, errdefs.ErrFailedPrecondition)
		}
		if p.running(ctx) == revision && p.onlyNew(old) {
			return nil
		}
		balancer.Pause(ctx, 5*time.Millisecond)
	}
	return fmt.Errorf("nginx has not loaded the configuration within %s: %w", reloadTimeout, errdefs.ErrUnavailable)
}

// ReloadDelay is how long to wait before routes are applied: with nginx every change needs a reload.
func (p *Proxy) ReloadDelay(map[string]balancer.Route) time.Duration {
	since := time.Since(p.reloaded)
	if p.reloaded.IsZero() || since >= max(p.config.Interval, balancer.MaxReloadDelay) {
		return 0
	}
	return balancer.ReloadDelay(p.config.Interval, len(p.old()), p.maxOld()) - since
}

// maxOld is how many old workers may run.
func (p *Proxy) maxOld() int {
	for _, pid := range p.workers() {
		return max(p.workerCount, balancer.MaxOldFor(p.config.MaxOld, pid))
	}
	return p.config.MaxOld
}

// limitOld ends the oldest old workers if a reload would leave too many.
func (p *Proxy) limitOld() {
	most := p.maxOld()
	if ended := balancer.EndOldest(p.old(), most-p.workerCount); ended > 0 {
		p.config.Log.Warn("too many workers of earlier configurations have open connections; the oldest are ended",
			"balancer", p.config.Name, "ended", ended, "most", most)
	}
}

// old lists the workers that only finish connections from before a reload.
func (p *Proxy) old() []int {
	ends := func(pid int) bool { return title(pid) == shuttingDown && !balancer.HasEnded(pid) }
	p.orphaned = slices.DeleteFunc(p.orphaned, func(pid int) bool { return !ends(pid) || !worksIn(pid, p.config.Dir) })
	return append(slices.DeleteFunc(p.children(), func(pid int) bool { return !ends(pid) }), p.orphaned...)
}

const shuttingDown = "nginx: worker process is shutting down"

// findOrphaned finds the workers that a killed master has left, which keep serving. It examines every process of the
// machine, so it is called only once.
func (p *Proxy) findOrphaned() {
	if p.config.Attach != nil {
		return
	}
	children := p.children()
	p.orphaned = slices.DeleteFunc(balancer.ListProcesses(), func(pid int) bool {
		return title(pid) != shuttingDown || slices.Contains(children, pid) || !worksIn(pid, p.config.Dir)
	})
}

// End ends every nginx of a folder, also those with open connections.
func End(dir string) {
	for _, pid := range balancer.ListProcesses() {
		if strings.HasPrefix(title(pid), "nginx: ") && worksIn(pid, dir) {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	}
}

// awaitWorkers waits until a new master has started its workers: it writes its pid file first, and the reload would not wait
// for a worker that was not seen before. The number of an attached nginx is unknown; if none appear for a moment, there are
// none.
func (p *Proxy) awaitWorkers(ctx context.Context) {
	limit := reloadTimeout / 2
	if p.config.Attach != nil {
		limit = 2 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for ctx.Err() == nil && p.Alive() && len(p.workers()) < p.workerCount {
		balancer.Pause(ctx, 2*time.Millisecond)
	}
}

// onlyNew reports whether all workers that accept requests were started by the reload, and have the expected number: one
// more is an old one that was not seen.
func (p *Proxy) onlyNew(old []int) bool {
	for _, pid := range old {
		if acceptsRequests(pid) {
			return false
		}
	}
	return p.config.Attach != nil || len(p.workers()) == p.workerCount
}

// test lets nginx check a configuration.
func (p *Proxy) test(ctx context.Context, candidate string) error {
	out, err := exec.CommandContext(ctx, p.config.Program, "-t", "-q", "-p", p.config.Dir, "-c", candidate, "-e", "stderr").CombinedOutput()
	if err != nil {
		why := firstError(out)
		if why == "" {
			why = balancer.LastLine(out, err)
		}
		return fmt.Errorf("nginx refuses the configuration: %s: %w", why, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// running is the revision that nginx reports; empty if it does not answer.
func (p *Proxy) running(ctx context.Context) string {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", p.path("status.sock"))
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://nginx/revision", nil)
	if err != nil {
		return ""
	}
	answer, err := client.Do(request)
	if err != nil {
		return ""
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 64))
	return string(text)
}

// runs reports whether nginx has a revision. A slow answer is requested again, since a reload costs more.
func (p *Proxy) runs(ctx context.Context, revision string) bool {
	for range 10 {
		if found := p.running(ctx); found != "" || ctx.Err() != nil {
			return found == revision
		}
	}
	return false
}

// master is the running master's process id, zero if there is none.
func (p *Proxy) master() int {
	file := p.path("nginx.pid")
	if p.config.Attach != nil {
		file = p.config.Attach.Pid
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !p.isOurs(pid) {
		return 0
	}
	return pid
}

// isOurs reports whether a process is a master of this folder: the process id may have been reused.
func (p *Proxy) isOurs(pid int) bool {
	return strings.HasPrefix(title(pid), "nginx: master process") && (p.config.Attach != nil || worksIn(pid, p.config.Dir)) && !balancer.HasEnded(pid)
}

// worksIn reports whether a process has the folder as its working directory, which marks the processes of a companion.
func worksIn(pid int, dir string) bool {
	where, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "cwd"))
	if err != nil {
		return false
	}
	here, err := filepath.EvalSymlinks(dir)
	return err == nil && where == here
}

// workers lists the processes that accept requests.
func (p *Proxy) workers() []int {
	return slices.DeleteFunc(p.children(), func(pid int) bool { return !acceptsRequests(pid) })
}

// children lists the processes that the master has started.
func (p *Proxy) children() []int {
	pid := strconv.Itoa(p.pid)
	text, err := os.ReadFile(filepath.Join("/proc", pid, "task", pid, "children"))
	if err != nil {
		return nil
	}
	var list []int
	for _, field := range strings.Fields(string(text)) {
		if child, err := strconv.Atoi(field); err == nil {
			list = append(list, child)
		}
	}
	return list
}

// acceptsRequests reports whether a worker accepts requests. One that is shutting down shows that in its title before it
// closes its sockets.
func acceptsRequests(pid int) bool {
	return title(pid) == "nginx: worker process" && !balancer.HasEnded(pid)
}

// endOrphans lets the workers of a killed master finish their requests and end, because they hold its ports, and without those no other
// one starts.
func (p *Proxy) endOrphans(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	for orphans := p.orphans(); len(orphans) > 0 && ctx.Err() == nil; orphans = p.orphans() {
		for _, pid := range orphans {
			_ = syscall.Kill(pid, syscall.SIGQUIT)
		}
		balancer.Pause(ctx, 2*time.Millisecond)
	}
}

// orphans lists the processes of this folder that may accept requests without a master; a worker that was just started may
// still have the master's title.
func (p *Proxy) orphans() []int {
	var list []int
	for _, pid := range balancer.ListProcesses() {
		name := title(pid)
		if strings.HasPrefix(name, "nginx: ") && !strings.HasSuffix(name, "shutting down") && worksIn(pid, p.config.Dir) && !balancer.HasEnded(pid) {
			list = append(list, pid)
		}
	}
	return list
}

// listens reports whether the running nginx has the TCP port in its configuration.
func (p *Proxy) listens(port int32) bool {
	text, err := os.ReadFile(p.current())
	return err == nil && bytes.Contains(text, fmt.Appendf(nil, "listen %s:%d;", p.settings.Host, port))
}

// title is the title of a process.
func title(pid int) string {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(bytes.TrimRight(text, "\x00")), " ")
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// loggedError is the first [emerg] line in nginx's log after an offset.
func loggedError(path string, offset int64) string {
	if size(path) <= offset {
		return ""
	}
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	text, _ := io.ReadAll(io.LimitReader(io.NewSectionReader(file, offset, 1<<20), 1<<20))
	return firstError(text)
}

// firstError is the first [emerg] line in nginx's output. The level must be at the start of a line, since text of clients
// may follow.
func firstError(text []byte) string {
	for line := range strings.Lines(string(text)) {
		if found := errorPattern.FindStringSubmatch(line); found != nil {
			return strings.TrimSpace(found[1])
		}
	}
	return ""
}

var errorPattern = regexp.MustCompile(`^(?:nginx: |\d{4}/\d\d/\d\d \d\d:\d\d:\d\d )\[emerg\] (.*)`)
