package dns

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/mammoth-os/mammoth/companions/registry"
	"github.com/mammoth-os/mammoth/internal/testenv"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

func endpoint(id, address string, port, weight int32) *apiv1.Endpoint {
	return &apiv1.Endpoint{
		Id: id, Address: address, Port: port, Weight: weight, State: apiv1.Endpoint_HEALTHY,
		Ports: map[string]int32{"http": port, "admin": port + 1},
	}
}

func known(t testing.TB) *Companion {
	t.Helper()
	config := Config{Listen: "127.0.0.1:0"}
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	sick := endpoint("web-3", "10.0.0.3", 30003, 100)
	sick.State = apiv1.Endpoint_UNHEALTHY
	c := &Companion{config: config}
	c.take(&companionv1.MirrorUpdate{Snapshot: true, Services: []*apiv1.Service{
		{Name: "web", Endpoints: []*apiv1.Endpoint{
			endpoint("web-1", "10.0.0.1", 30001, 100), endpoint("web-2", "10.0.0.1", 30002, 10), sick, endpoint("web-4", "10.0.0.4", 30004, 0),
		}},
		{Name: "admin.web", Endpoints: []*apiv1.Endpoint{endpoint("a.b", "::1", 9000, 100)}},
		{Name: "idle"},
		{Name: "gone"},
	}})
	c.take(&companionv1.MirrorUpdate{Removed: []string{"gone"}})
	return c
}

func TestAnswers(t *testing.T) {
	c := known(t)
	for _, test := range []struct {
		name string
		kind uint16
		code int
		want []string
	}{
		{"web.service.mammoth.", dns.TypeA, dns.RcodeSuccess, []string{"10.0.0.1"}},
		{"WEB.Service.Mammoth.", dns.TypeA, dns.RcodeSuccess, []string{"10.0.0.1"}},
		{"web.service.mammoth.", dns.TypeAAAA, dns.RcodeSuccess, nil},
		{"web.service.mammoth.", dns.TypeTXT, dns.RcodeSuccess, nil},
		{"web.service.mammoth.", dns.TypeSRV, dns.RcodeSuccess, []string{"0 10 30002 web-2.web.instance.mammoth.", "0 100 30001 web-1.web.instance.mammoth."}},
		{"_admin._tcp.web.service.mammoth.", dns.TypeSRV, dns.RcodeSuccess, []string{"0 10 30003 web-2.web.instance.mammoth.", "0 100 30002 web-1.web.instance.mammoth."}},
		{"_none._tcp.web.service.mammoth.", dns.TypeSRV, dns.RcodeSuccess, nil},
		{"web-2.web.instance.mammoth.", dns.TypeA, dns.RcodeSuccess, []string{"10.0.0.1"}},
		{"web-9.web.instance.mammoth.", dns.TypeA, dns.RcodeNameError, nil},
		{"admin.web.service.mammoth.", dns.TypeAAAA, dns.RcodeSuccess, []string{"::1"}},
		{"a.b.admin.web.instance.mammoth.", dns.TypeAAAA, dns.RcodeSuccess, []string{"::1"}},
		{"idle.service.mammoth.", dns.TypeA, dns.RcodeSuccess, nil},
		{"gone.service.mammoth.", dns.TypeA, dns.RcodeNameError, nil},
		{"none.service.mammoth.", dns.TypeSRV, dns.RcodeNameError, nil},
		{"service.mammoth.", dns.TypeA, dns.RcodeSuccess, nil},
		{"web.service.other.", dns.TypeA, dns.RcodeRefused, nil},
		{"web.service.notmammoth.", dns.TypeA, dns.RcodeRefused, nil},
	} {
		query := new(dns.Msg)
		query.SetQuestion(test.name, test.kind)
		answer := c.answer(query)
		var got []string
		for _, record := range answer.Answer {
			if record.Header().Ttl != 2 {
				t.Errorf("%s may be kept %d s", record, record.Header().Ttl)
			}
			got = append(got, strings.TrimPrefix(record.String(), record.Header().String()))
		}
		slices.Sort(got)
		if answer.Rcode != test.code || !slices.Equal(got, test.want) {
			t.Errorf("%s %s: %s %v, want %s %v", test.name, dns.TypeToString[test.kind], dns.RcodeToString[answer.Rcode], got, dns.RcodeToString[test.code], test.want)
		}
		if test.code != dns.RcodeRefused && len(got) == 0 && len(answer.Ns) != 1 {
			t.Errorf("%s: an empty answer without an SOA", test.name)
		}
	}
}

func TestBeforeTheZoneHasTold(t *testing.T) {
	c := &Companion{config: Config{Domain: "mammoth"}}
	query := new(dns.Msg)
	query.SetQuestion("web.service.mammoth.", dns.TypeA)
	if answer := c.answer(query); answer.Rcode != dns.RcodeServerFailure {
		t.Errorf("answered %s", answer)
	}
}

// Whatever is asked is answered with something that can be sent.
func FuzzAnswer(f *testing.F) {
	query := new(dns.Msg)
	query.SetQuestion("_http._tcp.web.service.mammoth.", dns.TypeSRV)
	packed, err := query.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	c := known(f)
	f.Fuzz(func(t *testing.T, packed []byte) {
		query := new(dns.Msg)
		if query.Unpack(packed) != nil {
			return
		}
		if _, err := c.answer(query).Pack(); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	})
}

func TestServer(t *testing.T) {
	testenv.Need(t, "program:dig")
	r := registry.New(0)
	companion := run(t, r)
	host, port, _ := net.SplitHostPort(companion.Addr())
	dig := func(arguments ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, "dig", append([]string{"@" + host, "-p", port, "+short"}, arguments...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("dig: %v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	r.Publish("web", []*apiv1.Endpoint{endpoint("web-1", "127.0.0.1", 30001, 100)})
	await(t, companion, "web", 1)
	if got := dig("web.service.mammoth", "SRV"); got != "0 100 30001 web-1.web.instance.mammoth." {
		t.Errorf("SRV over UDP is %q", got)
	}
	if got := dig("+tcp", "web.service.mammoth"); got != "127.0.0.1" {
		t.Errorf("A over TCP is %q", got)
	}
	var many []*apiv1.Endpoint
	for i := range 200 {
		many = append(many, endpoint(fmt.Sprintf("web-%d", i), fmt.Sprintf("10.0.%d.%d", i/100, i%100+1), 30000, 100))
	}
	r.Publish("web", many)
	await(t, companion, "web", 200)
	if got := strings.Count(dig("web.service.mammoth", "SRV"), "\n") + 1; got != 200 {
		t.Errorf("%d of 200 instances are told: a long answer goes over TCP", got)
	}
}

func TestPortIsTaken(t *testing.T) {
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := New(Config{Listen: taken.LocalAddr().String()}, nil); err == nil || !strings.Contains(err.Error(), "listen for DNS") {
		t.Errorf("a port that is taken: %v", err)
	}
}

// run runs a companion of a registry until the test ends.
func run(t *testing.T, r *registry.Registry) *Companion {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	companionv1.RegisterCompanionsServer(server, r)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	conn, err := grpc.NewClient("passthrough:zone",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	companion, err := New(Config{Listen: "127.0.0.1:0"}, conn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- companion.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the companion ended with %v", err)
		}
		_ = conn.Close()
		server.Stop()
		<-served
	})
	return companion
}

// await waits until the companion knows so many instances.
func await(t *testing.T, c *Companion, service string, count int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if services := c.services.Load(); services != nil && len((*services)[service].GetEndpoints()) == count {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%q never had %d instances", service, count)
		case <-tick.C:
		}
	}
}
