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

// How long a reload may take until the new workers answer and the old ones take no more requests.
const reloadLimit = 20 * time.Second

// reload makes the configuration in place the running one, and returns once no worker takes a request by an
// older one. Workers that are still finishing earlier requests are left to do so.
func (p *Proxy) reload(ctx context.Context, revision string) error {
	ctx, cancel := context.WithTimeout(ctx, reloadLimit)
	defer cancel()
	p.awaitWorkers(ctx)
	p.makeRoom()
	old := p.workers()
	log := size(p.path("error.log"))
	if err := syscall.Kill(p.pid, syscall.SIGHUP); err != nil {
		return fmt.Errorf("telling nginx to reload: %w", err)
	}
	for ctx.Err() == nil {
		if !p.Alive() {
			return fmt.Errorf("nginx ended while it was reloading: %w", errdefs.ErrUnavailable)
		}
		if problem := emergency(p.path("error.log"), log); problem != "" {
			return fmt.Errorf("nginx did not take the configuration: %s: %w", problem, errdefs.ErrFailedPrecondition)
		}
		if p.running(ctx) == revision && p.onlyNew(old) {
			return nil
		}
		balancer.Pause(ctx, 5*time.Millisecond)
	}
	return fmt.Errorf("nginx has not taken the configuration within %s: %w", reloadLimit, errdefs.ErrUnavailable)
}

// Rest is how long to wait before routes are applied: with nginx every change needs a reload.
func (p *Proxy) Rest(map[string]balancer.Route) time.Duration {
	since := time.Since(p.reloaded)
	if p.reloaded.IsZero() || since >= max(p.config.Interval, balancer.LongestRest) {
		return 0
	}
	return balancer.Rest(p.config.Interval, len(p.old()), p.mostOld()) - since
}

// mostOld is how many old workers may run.
func (p *Proxy) mostOld() int {
	for _, pid := range p.workers() {
		return max(p.expected, balancer.Fitting(p.config.MaxOld, pid))
	}
	return p.config.MaxOld
}

// makeRoom ends the oldest old workers if a reload would leave too many of them.
func (p *Proxy) makeRoom() {
	most := p.mostOld()
	if ended := balancer.EndOldest(p.old(), most-p.expected); ended > 0 {
		p.config.Log.Warn("the oldest connections are cut: too many workers of earlier configurations still have open connections",
			"balancer", p.config.Name, "ended", ended, "most", most)
	}
}

// old is the workers that only finish the connections that they accepted before a reload.
func (p *Proxy) old() []int {
	ends := func(pid int) bool { return title(pid) == shuttingDown && !balancer.Zombie(pid) }
	p.orphaned = slices.DeleteFunc(p.orphaned, func(pid int) bool { return !ends(pid) || !worksIn(pid, p.config.Dir) })
	return append(slices.DeleteFunc(p.children(), func(pid int) bool { return !ends(pid) }), p.orphaned...)
}

const shuttingDown = "nginx: worker process is shutting down"

// findOrphaned notes the workers that a master which was killed has left, and which serve on. Every process of the machine is looked
// at for it, so it is done only once.
func (p *Proxy) findOrphaned() {
	if p.config.Attach != nil {
		return
	}
	children := p.children()
	p.orphaned = slices.DeleteFunc(balancer.Processes(), func(pid int) bool {
		return title(pid) != shuttingDown || slices.Contains(children, pid) || !worksIn(pid, p.config.Dir)
	})
}

// End ends every nginx of a folder, also those with open connections.
func End(dir string) {
	for _, pid := range balancer.Processes() {
		if strings.HasPrefix(title(pid), "nginx: ") && worksIn(pid, dir) {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	}
}

// awaitWorkers waits until a master that was just started has started its workers: it writes its pid file first, and
// a worker that is not seen before a reload would not be waited for. Of an nginx that others run the number is not
// known; if it says nothing for a moment, there is none to be waited for.
func (p *Proxy) awaitWorkers(ctx context.Context) {
	limit := reloadLimit / 2
	if p.config.Attach != nil {
		limit = 2 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for ctx.Err() == nil && p.Alive() && len(p.workers()) < p.expected {
		balancer.Pause(ctx, 2*time.Millisecond)
	}
}

// onlyNew reports whether all the workers that take requests were started by the reload, and are as many as they
// should be: one too many is an old one that was not seen before.
func (p *Proxy) onlyNew(old []int) bool {
	for _, pid := range old {
		if takes(pid) {
			return false
		}
	}
	return p.config.Attach != nil || len(p.workers()) == p.expected
}

// test has nginx check a configuration.
func (p *Proxy) test(ctx context.Context, candidate string) error {
	out, err := exec.CommandContext(ctx, p.config.Program, "-t", "-q", "-p", p.config.Dir, "-c", candidate, "-e", "stderr").CombinedOutput()
	if err != nil {
		why := complaint(out)
		if why == "" {
			why = balancer.LastLine(out, err)
		}
		return fmt.Errorf("nginx refuses the configuration: %s: %w", why, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// running asks nginx which revision it routes by; empty if it does not say.
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

// runs reports whether nginx routes by a revision already. One that is slow to answer is asked again: a reload costs more.
func (p *Proxy) runs(ctx context.Context, revision string) bool {
	for range 10 {
		if said := p.running(ctx); said != "" || ctx.Err() != nil {
			return said == revision
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

// isOurs reports whether a process is a living master of this folder: the number may long be another's.
func (p *Proxy) isOurs(pid int) bool {
	return strings.HasPrefix(title(pid), "nginx: master process") && (p.config.Attach != nil || worksIn(pid, p.config.Dir)) && !balancer.Zombie(pid)
}

// worksIn reports whether a process has the folder as its working directory, which marks nginx's processes as one companion's.
func worksIn(pid int, dir string) bool {
	where, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "cwd"))
	if err != nil {
		return false
	}
	here, err := filepath.EvalSymlinks(dir)
	return err == nil && where == here
}

// workers is the processes that take requests now.
func (p *Proxy) workers() []int {
	return slices.DeleteFunc(p.children(), func(pid int) bool { return !takes(pid) })
}

// children is the processes that the master has started.
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

// takes reports whether a worker accepts requests. One that was told to end says so in its title before it closes
// its sockets.
func takes(pid int) bool { return title(pid) == "nginx: worker process" && !balancer.Zombie(pid) }

// endOrphans has the workers of a master that was killed finish their requests and go: they hold its ports, and without those no other
// one starts.
func (p *Proxy) endOrphans(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reloadLimit)
	defer cancel()
	for orphans := p.orphans(); len(orphans) > 0 && ctx.Err() == nil; orphans = p.orphans() {
		for _, pid := range orphans {
			_ = syscall.Kill(pid, syscall.SIGQUIT)
		}
		balancer.Pause(ctx, 2*time.Millisecond)
	}
}

// orphans is every process of this folder that may take requests. There is no master; a worker that it had just
// started may still go by its name.
func (p *Proxy) orphans() []int {
	var list []int
	for _, pid := range balancer.Processes() {
		name := title(pid)
		if strings.HasPrefix(name, "nginx: ") && !strings.HasSuffix(name, "shutting down") && worksIn(pid, p.config.Dir) && !balancer.Zombie(pid) {
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

// title is what a process calls itself.
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

// emergency is the first line that nginx has logged after offset as the reason of not going on.
func emergency(path string, offset int64) string {
	if size(path) <= offset {
		return ""
	}
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	text, _ := io.ReadAll(io.LimitReader(io.NewSectionReader(file, offset, 1<<20), 1<<20))
	return complaint(text)
}

// complaint is the first reason for not going on among what nginx says. Only nginx's own level counts: what clients send
// stands further on in a line of the log.
func complaint(text []byte) string {
	for line := range strings.Lines(string(text)) {
		if found := emergencyPattern.FindStringSubmatch(line); found != nil {
			return strings.TrimSpace(found[1])
		}
	}
	return ""
}

var emergencyPattern = regexp.MustCompile(`^(?:nginx: |\d{4}/\d\d/\d\d \d\d:\d\d:\d\d )\[emerg\] (.*)`)
