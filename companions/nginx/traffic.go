package nginx

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	random "math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/mammoth-os/mammoth/companions/balancer"
	"github.com/mammoth-os/mammoth/internal/sockets"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

// maxLog is the size at which the error log is truncated.
const maxLog = 16 << 20

// traffic receives every request, and every error, from nginx: one datagram each. Without a companion they are lost: a file
// would grow until the disk is full.
type traffic struct {
	// stateFile has the address and the mark, so that the next companion receives without a reload; errors is the file for
	// errors of requests.
	stateFile, errors string

	conn *net.UDPConn
	// Every datagram of nginx begins with it, since any program on this machine can send to the port.
	mark    string
	reading sync.WaitGroup

	mu sync.Mutex
	// Endpoint ids by service and address, of this plan and earlier ones: a request may end after its plan.
	ids    map[target]string
	counts map[counted]*companionv1.Traffic
}

type target struct{ service, address string }

type counted struct{ service, endpoint string }

// listen binds the port of the companion before, or else another one.
func (t *traffic) listen() error {
	var port int
	if text, err := os.ReadFile(t.stateFile); err == nil {
		_, _ = fmt.Sscan(string(text), &port, &t.mark)
	}
	var err error
	if t.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}); err != nil || len(t.mark) != markLength {
		if t.conn != nil {
			_ = t.conn.Close()
		}
		if t.conn, err = listenForSyslog(); err != nil {
			return fmt.Errorf("listen for nginx's traffic messages: %w", err)
		}
		t.mark = rand.Text()
	}
	// A large buffer loses fewer messages.
	_ = t.conn.SetReadBuffer(4 << 20)
	note := fmt.Sprintln(t.conn.LocalAddr().(*net.UDPAddr).Port, t.mark)
	if err := os.WriteFile(t.stateFile, []byte(note), 0o600); err != nil {
		_ = t.conn.Close()
		return fmt.Errorf("store the address for nginx's traffic messages: %w", err)
	}
	t.ids, t.counts = map[target]string{}, map[counted]*companionv1.Traffic{}
	t.reading.Go(t.run)
	return nil
}

// listenForSyslog binds a port outside the kernel's ephemeral range. While nobody listens, nginx connects a new socket for each
// message. A socket with this port as its source would be connected to itself and keep the next companion from binding the port.
func listenForSyslog() (*net.UDPConn, error) {
	listen := func(port int) (*net.UDPConn, error) {
		return net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	}
	first, count := portsOfNoSender()
	for range min(count, 100) {
		if conn, err := listen(first + random.IntN(count)); err == nil {
			return conn, nil
		}
	}
	return listen(0)
}

// portsOfNoSender returns a range of ports outside the kernel's ephemeral range: its first port and its length.
func portsOfNoSender() (first, count int) {
	const lowest, highest = 10_000, 1<<16 - 1
	from, to := sockets.EphemeralRange()
	if from > lowest {
		return lowest, from - lowest
	}
	return to + 1, highest - to
}

// markLength is the length of rand.Text: 130 bits, in letters and digits.
const markLength = 26

func (t *traffic) address() string { return t.conn.LocalAddr().String() }

func (t *traffic) close() {
	_ = t.conn.Close()
	t.reading.Wait()
}

// run receives datagrams until the connection is closed.
func (t *traffic) run() {
	buffer := make([]byte, 4096)
	for {
		n, err := t.conn.Read(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			t.receive(string(buffer[:n]))
		}
	}
}

// Messages about requests and about errors have different tags.
func requestTag(mark string) string { return mark }
func errorTag(mark string) string   { return mark + "_e" }

// receive handles one datagram: "<190>Nov 22 10:00:00 TAG: LINE".
func (t *traffic) receive(text string) {
	head, line, found := strings.Cut(text, ": ")
	if !found {
		return
	}
	switch head[strings.LastIndexByte(head, ' ')+1:] {
	case requestTag(t.mark):
		t.count(line)
	case errorTag(t.mark):
		file, err := os.OpenFile(t.errors, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		if err != nil {
			return
		}
		defer file.Close()
		_, _ = file.WriteString(strings.TrimSpace(line) + "\n")
	}
}

// routes records which address is which endpoint.
func (t *traffic) routes(plan *balancer.Plan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ids) > 100_000 {
		clear(t.ids)
	}
	for _, service := range plan.Services {
		for _, server := range service.HTTP {
			t.ids[target{service.Name, server.Address + ":" + strconv.Itoa(int(server.Port))}] = server.ID
		}
	}
}

// take returns the counts since the last call.
func (t *traffic) take() []*companionv1.Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
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

// count handles one line: the service, the addresses that were tried, the status.
func (t *traffic) count(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
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
		// An address that was tried and skipped did not answer.
		if i < len(tried)-1 || status >= 500 {
			t.counts[key].Errors++
		}
	}
}
