package nginx

import (
	"bytes"
	"cmp"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/mammoth-os/mammoth/companions/balancer"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// largestLog is when the log of requests is begun anew.
const largestLog = 16 << 20

// traffic counts requests by reading what nginx logs of them.
type traffic struct {
	path string

	mu     sync.Mutex
	offset int64
	// Endpoint ids by service and address, of this plan and the ones before it: a request ends after its plan.
	ids    map[target]string
	counts map[counted]*companionv1.Traffic
}

type target struct{ service, address string }

type counted struct{ service, endpoint string }

// routes learns which address is which endpoint.
func (t *traffic) routes(plan *balancer.Plan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ids == nil {
		// What was logged before this companion's time is not its to report.
		t.offset = size(t.path)
		t.ids = map[target]string{}
		t.counts = map[counted]*companionv1.Traffic{}
	}
	if len(t.ids) > 100_000 {
		clear(t.ids)
	}
	for _, service := range plan.Services {
		for _, server := range service.HTTP {
			t.ids[target{service.Name, server.Address + ":" + strconv.Itoa(int(server.Port))}] = server.ID
		}
	}
}

// take returns what was counted since the last call.
func (t *traffic) take() []*companionv1.Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ids == nil {
		return nil
	}
	t.read()
	var list []*companionv1.Traffic
	for _, count := range t.counts {
		list = append(list, count)
	}
	clear(t.counts)
	slices.SortFunc(list, func(a, b *companionv1.Traffic) int {
		return cmp.Or(strings.Compare(a.GetService(), b.GetService()), strings.Compare(a.GetEndpoint(), b.GetEndpoint()))
	})
	return list
}

func (t *traffic) read() {
	file, err := os.OpenFile(t.path, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer file.Close()
	if now := size(t.path); now < t.offset {
		t.offset = 0
	}
	text, err := io.ReadAll(io.LimitReader(io.NewSectionReader(file, t.offset, largestLog), largestLog))
	if err != nil {
		return
	}
	whole := bytes.LastIndexByte(text, '\n') + 1
	for line := range bytes.Lines(text[:whole]) {
		t.count(string(line))
	}
	t.offset += int64(whole)
	if t.offset >= largestLog {
		// nginx appends, so what it writes next lands at the beginning.
		_ = file.Truncate(0)
		t.offset = 0
	}
}

// count takes in one line: the service, the addresses that were tried, the status.
func (t *traffic) count(line string) {
	service, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	last := strings.LastIndexByte(rest, ' ')
	if last < 0 {
		return
	}
	status, _ := strconv.Atoi(rest[last+1:])
	tried := strings.FieldsFunc(rest[:last], func(c rune) bool { return c == ',' || c == ' ' })
	for i, address := range tried {
		id, known := t.ids[target{service, address}]
		if !known {
			continue
		}
		key := counted{service, id}
		if t.counts[key] == nil {
			t.counts[key] = &companionv1.Traffic{Service: service, Endpoint: id}
		}
		t.counts[key].Requests++
		// Whoever was tried and passed over did not answer.
		if i < len(tried)-1 || status >= 500 {
			t.counts[key].Errors++
		}
	}
}
