package haproxy

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
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The routes are those that nginx is tested with; testdata/NAME.cfg is what HAProxy is given for them.
func TestRender(t *testing.T) {
	inputs, err := filepath.Glob("../nginx/testdata/*.json")
	if err != nil || len(inputs) < 5 {
		t.Fatalf("found %d sets of routes, %v", len(inputs), err)
	}
	for _, input := range inputs {
		name := strings.TrimSuffix(filepath.Base(input), ".json")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			sent := &companionv1.RouteUpdate{}
			if err := protojson.Unmarshal(text, sent); err != nil {
				t.Fatal(err)
			}
			routes := map[string]balancer.Route{}
			for _, route := range sent.GetRoutes() {
				routes[route.GetService().GetName()] = balancer.Route{Service: route.GetService(), Expose: route.GetExpose()}
			}
			plan, _ := balancer.MakePlan(routes, balancer.Limits{})
			f := render(settings{
				Dir: "/var/lib/mammoth/haproxy", Listen: "0.0.0.0:80", TLS: "0.0.0.0:443", Host: "0.0.0.0", User: "haproxy",
				StopAfter: 60, Connections: 4096, DynamicCookieSecret: "secret",
			}, plan)
			got := strings.ReplaceAll(f.config, f.shape, "SHAPE") + "\n# routes.map\n" + f.routes + "\n# hosts.map\n" + f.hosts
			want := filepath.Join("testdata", name+".cfg")
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

func TestScale(t *testing.T) {
	for _, test := range []struct {
		weights []int32
		want    string
	}{
		{[]int32{100, 100, 100}, "[1 1 1]"},
		{[]int32{90, 10}, "[9 1]"},
		{[]int32{100, 111}, "[100 111]"},
		{[]int32{10000, 1}, "[256 1]"},
		{[]int32{999, 500}, "[256 128]"},
		{nil, "[]"},
	} {
		var servers []balancer.Server
		for _, weight := range test.weights {
			servers = append(servers, balancer.Server{Weight: weight})
		}
		if got := fmt.Sprint(scale(servers)); got != test.want {
			t.Errorf("%v is scaled to %s, want %s", test.weights, got, test.want)
		}
	}
}

func TestSteps(t *testing.T) {
	wanted := group{"app_web", []balancer.Server{
		{ID: "same", Address: "127.0.0.1", Port: 1, Weight: 1},
		{ID: "new", Address: "127.0.0.1", Port: 2, Weight: 1},
		{ID: "moved", Address: "127.0.0.1", Port: 3, Weight: 1},
		{ID: "back", Address: "[::1]", Port: 4, Weight: 3},
	}}
	have := map[string]server{
		"same": {"127.0.0.1", 1, 1, false}, "moved": {"127.0.0.1", 9, 1, false}, "back": {"[::1]", 4, 1, true},
		"gone": {"127.0.0.1", 5, 1, true},
	}
	needed, tidy := steps(wanted, have)
	want := []string{
		"add server app_web/new 127.0.0.1:2 weight 1", "enable server app_web/new",
		"set server app_web/moved addr 127.0.0.1 port 3",
		"set server app_web/back weight 3", "set server app_web/back state ready",
	}
	if diff := cmp.Diff(want, needed); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"del server app_web/gone"}, tidy); diff != "" {
		t.Error(diff)
	}
}
