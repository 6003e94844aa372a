package nginx

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/mammoth-os/mammoth/companions/balancer"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

var golden = settings{
	Dir: "/var/lib/mammoth/nginx", Listen: "0.0.0.0:80", TLS: "0.0.0.0:443", Host: "0.0.0.0", User: "www-data",
	TrafficAddress: "127.0.0.1:40000", Mark: "MARK", Workers: 2, Connections: 4096, StreamModule: "/usr/lib/nginx/modules/ngx_stream_module.so", ShutdownSeconds: 60, KeepsIdle: true,
}

// Each testdata/NAME.json holds routes as the zone sends them; NAME.conf is what nginx is given, with what was
// refused as comments above.
func TestRender(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.json")
	if err != nil || len(inputs) < 5 {
		t.Fatalf("found %d golden pairs, %v", len(inputs), err)
	}
	for _, input := range inputs {
		t.Run(filepath.Base(input), func(t *testing.T) {
			text, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			sent := &companionv1.RouteUpdate{}
			if err := protojson.Unmarshal(text, sent); err != nil {
				t.Fatal(err)
			}
			got := renderUpdate(sent)
			want := strings.TrimSuffix(input, ".json") + ".conf"
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			expected, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(expected), got); diff != "" {
				t.Errorf("differs from %s (go test -update writes it anew):\n%s", want, diff)
			}
		})
	}
}

func renderUpdate(sent *companionv1.RouteUpdate) string {
	routes := map[string]balancer.Route{}
	for _, route := range sent.GetRoutes() {
		routes[route.GetService().GetName()] = balancer.Route{Service: route.GetService(), Expose: route.GetExpose()}
	}
	plan, refusals := balancer.MakePlan(routes, balancer.Limits{})
	text, revision := render(golden, plan)
	head := ""
	for _, refusal := range refusals {
		head += "# refused " + refusal.GetService() + ": " + refusal.GetReason() + "\n"
	}
	return head + strings.Replace(text, revision, "REVISION", 1)
}

// The order in which routes arrive changes nothing, and what is different has another revision.
func TestRevision(t *testing.T) {
	_, empty := render(golden, &balancer.Plan{})
	_, again := render(golden, &balancer.Plan{})
	other := golden
	other.Workers++
	_, different := render(other, &balancer.Plan{})
	if empty != again || empty == different {
		t.Errorf("revisions are %s, %s and %s", empty, again, different)
	}
}

// However braces, quotes and line ends are smuggled in: what is rendered has as many blocks as nginx is meant to see.
func FuzzRender(f *testing.F) {
	f.Add("web", "web.example.test", "/", "web-1", "127.0.0.1", "seat", "name")
	f.Add("x;}", "a\nb", "/{", "}", "1;", "a b", "../c")
	f.Fuzz(func(t *testing.T, name, host, path, id, address, cookie, certificate string) {
		sent := &companionv1.RouteUpdate{}
		if err := protojson.Unmarshal([]byte(`{"routes":[{"service":{"endpoints":[{"port":80,"weight":1}]},"expose":{"http":{}}}]}`), sent); err != nil {
			t.Fatal(err)
		}
		route := sent.GetRoutes()[0]
		route.Service.Name = name
		route.Service.Endpoints[0].Id, route.Service.Endpoints[0].Address = id, address
		http := route.GetExpose().GetHttp()
		http.Host, http.Path, http.StickyCookie, http.Certificate = host, path, cookie, certificate
		text := renderUpdate(sent)
		_, config, _ := strings.Cut(text, "# Written by")
		depth := 0
		for line := range strings.Lines(config) {
			line = strings.TrimSpace(strings.SplitN(line, " # ", 2)[0])
			switch {
			case strings.HasSuffix(line, "{"):
				depth++
			case line == "}":
				depth--
			case line != "" && !strings.HasSuffix(line, ";") && !strings.Contains(line, "mammoth's nginx companion"):
				t.Fatalf("the line %q is no directive", line)
			}
			if depth < 0 {
				t.Fatalf("a block was closed that was never opened:\n%s", config)
			}
		}
		if depth != 0 {
			t.Fatalf("%d blocks are left open:\n%s", depth, config)
		}
	})
}

func BenchmarkThousandServices(b *testing.B) {
	routes := map[string]balancer.Route{}
	for i := range 1000 {
		route := balancer.Route{
			Service: &apiv1.Service{Name: fmt.Sprintf("app-%d", i)},
			Expose:  &apiv1.Expose{Http: &apiv1.Expose_Http{Host: fmt.Sprintf("app-%d.example.test", i)}},
		}
		for n := range 10 {
			route.Service.Endpoints = append(route.Service.Endpoints, &apiv1.Endpoint{
				Id: fmt.Sprintf("app-%d-%d", i, n), Address: "127.0.0.1", Port: int32(20000 + 10*i + n), Weight: 100,
			})
		}
		routes[route.Service.GetName()] = route
	}
	for b.Loop() {
		plan, refusals := balancer.MakePlan(routes, balancer.Limits{})
		if text, _ := render(golden, plan); len(refusals) > 0 || text == "" {
			b.Fatal(refusals)
		}
	}
}
