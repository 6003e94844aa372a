package haproxy

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/companions/balancer"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// These are the limits of one command of the runtime interface, of one that only counts, and of a reload.
const (
	commandTimeout = 20 * time.Second
	countTimeout   = 5 * time.Second
	reloadTimeout  = 20 * time.Second
)

// command sends one line to the runtime interface and returns the answer.
func (p *Proxy) command(ctx context.Context, line string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", p.path("admin.sock"))
	if err != nil {
		return "", fmt.Errorf("HAProxy's runtime interface: %w: %w", err, errdefs.ErrUnavailable)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return "", fmt.Errorf("HAProxy's runtime interface: %w: %w", err, errdefs.ErrUnavailable)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return "", fmt.Errorf("HAProxy's runtime interface: %w: %w", err, errdefs.ErrUnavailable)
	}
	return strings.TrimSpace(string(answer)), nil
}

// ask sends a command whose answer is never empty. A process that ends closes its connections without one.
func (p *Proxy) ask(ctx context.Context, line string) (string, error) {
	answer, err := p.command(ctx, line)
	if err == nil && answer == "" {
		err = fmt.Errorf("HAProxy's runtime interface has not answered %q: %w", line, errdefs.ErrUnavailable)
	}
	return answer, err
}

// shape is the shape of the running HAProxy's configuration.
func (p *Proxy) shape(ctx context.Context) (string, error) {
	info, err := p.ask(ctx, "show info")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(info) {
		if shape, found := strings.CutPrefix(line, "description: "); found {
			return strings.TrimSpace(shape), nil
		}
	}
	return "", nil
}

// server is a server in HAProxy.
type server struct {
	address string
	port    int32
	weight  int32
	// Disabled by its administrator, which is this companion.
	disabled bool
}

// servers lists every server in HAProxy, by backend and name.
func (p *Proxy) servers(ctx context.Context) (map[string]map[string]server, error) {
	text, err := p.ask(ctx, "show servers state")
	if err != nil {
		return nil, err
	}
	state := map[string]map[string]server{}
	for line := range strings.Lines(text) {
		// be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight … srv_port at the 19th place.
		field := strings.Fields(line)
		if len(field) < 19 || strings.HasPrefix(line, "#") {
			continue
		}
		admin, _ := strconv.Atoi(field[6])
		weight, _ := strconv.ParseInt(field[7], 10, 32)
		port, _ := strconv.ParseInt(field[18], 10, 32)
		if state[field[1]] == nil {
			state[field[1]] = map[string]server{}
		}
		address := field[4]
		if strings.Contains(address, ":") {
			address = "[" + address + "]"
		}
		state[field[1]][field[3]] = server{address: address, port: int32(port), weight: int32(weight), disabled: admin&1 != 0}
	}
	return state, nil
}

// updateServers changes the servers of the running HAProxy, and verifies them.
func (p *Proxy) updateServers(ctx context.Context, plan *balancer.Plan, wanted files) error {
	complaint := "it does not say why"
	for range 3 {
		state, err := p.servers(ctx)
		if err != nil {
			return err
		}
		var commands []string
		settled := true
		for _, group := range groups(plan) {
			needed, tidy := steps(group, state[group.name])
			settled = settled && len(needed) == 0
			commands = append(append(commands, needed...), tidy...)
		}
		for chunk := range slices.Chunk(commands, 50) {
			answer, err := p.command(ctx, strings.Join(chunk, ";"))
			if err != nil {
				return err
			}
			complaint = cmp.Or(answer, complaint)
		}
		if settled {
			// A restarted HAProxy reads this.
			return p.replace("haproxy.cfg", wanted.config)
		}
	}
	return fmt.Errorf("HAProxy does not accept its servers: %s: %w", complaint, errdefs.ErrUnavailable)
}

// steps lists the commands that change a backend's servers, and those that clean up afterwards: a server can be deleted only
// after its last connection has ended.
func steps(wanted group, have map[string]server) (needed, tidy []string) {
	weights := scale(wanted.servers)
	keep := map[string]bool{}
	for i, want := range wanted.servers {
		keep[want.ID] = true
		name := wanted.name + "/" + want.ID
		now, exists := have[want.ID]
		if !exists {
			needed = append(needed, fmt.Sprintf("add server %s %s:%d weight %d", name, want.Address, want.Port, weights[i]), "enable server "+name)
			continue
		}
		if now.address != want.Address || now.port != want.Port {
			needed = append(needed, fmt.Sprintf("set server %s addr %s port %d", name, strings.Trim(want.Address, "[]"), want.Port))
		}
		if now.weight != weights[i] {
			needed = append(needed, fmt.Sprintf("set server %s weight %d", name, weights[i]))
		}
		if now.disabled {
			needed = append(needed, fmt.Sprintf("set server %s state ready", name))
		}
	}
	for id, now := range have {
		if keep[id] {
			continue
		}
		name := wanted.name + "/" + id
		if !now.disabled {
			needed = append(needed, fmt.Sprintf("set server %s state maint", name))
		}
		tidy = append(tidy, "del server "+name)
	}
	return needed, tidy
}

// reload starts a process with a new configuration, and returns once the old one accepts no requests. That includes those to the runtime
// interface, whose socket the two share: as long as the old process has it open, either of them answers.
func (p *Proxy) reload(ctx context.Context, wanted files) error {
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	before, err := os.ReadFile(p.path("haproxy.cfg"))
	if err != nil {
		return fmt.Errorf("keep the last good configuration: %w", err)
	}
	p.reloaded = time.Now()
	p.limitOld()
	if err := p.install(ctx, wanted); err != nil {
		return err
	}
	old := p.pid
	if err := p.supersede(old); err != nil {
		return err
	}
	if err := p.launch(ctx, old); err != nil {
		if p.process() == old {
			delete(p.closing, old) // it goes on
		}
		_ = p.replace("haproxy.cfg", string(before))
		return err
	}
	for ctx.Err() == nil {
		if shape, err := p.shape(ctx); err == nil && shape == wanted.shape && p.closed() {
			p.deleteOld(wanted.shape)
			return nil
		}
		balancer.Pause(ctx, 5*time.Millisecond)
	}
	return fmt.Errorf("HAProxy has not loaded the configuration within %s: %w", reloadTimeout, errdefs.ErrUnavailable)
}

// counts are HAProxy's counts of one server since the process began or the server was added.
type counts struct{ requests, errors int64 }

// Traffic returns the counts since the last call.
func (p *Proxy) Traffic() []*companionv1.Traffic {
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	text, err := p.command(ctx, "show stat -1 4 -1")
	if err != nil {
		return nil
	}
	now, err := parseStatistics(text)
	if err != nil {
		return nil
	}
	var list []*companionv1.Traffic
	for name, count := range now {
		before := p.counts[name]
		if count.requests < before.requests || count.errors < before.errors {
			before = counts{}
		}
		if count == before {
			continue
		}
		backend, id, _ := strings.Cut(name, "/")
		list = append(list, &companionv1.Traffic{
			Service: strings.TrimPrefix(backend, "app_"), Endpoint: id,
			Requests: count.requests - before.requests, Errors: count.errors - before.errors,
		})
	}
	p.counts = now
	slices.SortFunc(list, func(a, b *companionv1.Traffic) int {
		return strings.Compare(a.GetService()+"/"+a.GetEndpoint(), b.GetService()+"/"+b.GetEndpoint())
	})
	return list
}

// parseStatistics reads HAProxy's table of servers of apps.
func parseStatistics(text string) (map[string]counts, error) {
	reader := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "# ")))
	reader.FieldsPerRecord = -1
	records, err := reader.ReadAll()
	if err != nil || len(records) == 0 {
		return nil, fmt.Errorf("cannot read HAProxy's statistics: %w", errdefs.ErrDataLoss)
	}
	column := map[string]int{}
	for i, name := range records[0] {
		column[name] = i
	}
	result := map[string]counts{}
	for _, record := range records[1:] {
		number := func(name string) int64 {
			i, known := column[name]
			if !known || i >= len(record) {
				return 0
			}
			n, _ := strconv.ParseInt(record[i], 10, 64)
			return max(n, 0)
		}
		if len(record) < 2 || !strings.HasPrefix(record[0], "app_") {
			continue
		}
		unanswered := number("econ") + number("eresp")
		count := counts{requests: unanswered, errors: unanswered + number("hrsp_5xx")}
		for _, class := range []string{"hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other"} {
			count.requests += number(class)
		}
		result[record[0]+"/"+record[1]] = count
	}
	return result, nil
}
