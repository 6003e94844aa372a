package nginx

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mammoth-os/mammoth/companions/balancer"
)

func counting(t testing.TB) *traffic {
	t.Helper()
	c := &traffic{path: filepath.Join(t.TempDir(), "traffic.log")}
	c.routes(&balancer.Plan{Services: []balancer.Service{{Name: "web", HTTP: []balancer.Server{
		{ID: "web-1", Address: "127.0.0.1", Port: 1001}, {ID: "web-2", Address: "127.0.0.1", Port: 1002},
	}}}})
	return c
}

func (t *traffic) write(tb testing.TB, text string) {
	tb.Helper()
	file, err := os.OpenFile(t.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		tb.Fatal(err)
	}
}

func TestTraffic(t *testing.T) {
	c := counting(t)
	if got := c.take(); len(got) != 0 {
		t.Fatalf("without a log: %v", got)
	}
	c.write(t, "web 127.0.0.1:1001 200\nweb 127.0.0.1:1001, 127.0.0.1:1002 200\nweb 127.0.0.1:1002 503\n- - 404\nweb app_web 502\nweb 127.0.0.1:9 200\nweb 127.0")
	got := c.take()
	if len(got) != 2 || got[0].GetRequests() != 2 || got[0].GetErrors() != 1 || got[1].GetRequests() != 2 || got[1].GetErrors() != 1 {
		t.Fatalf("counted %v", got)
	}
	c.write(t, ".0.1:1001 200\n")
	if got := c.take(); len(got) != 1 || got[0].GetRequests() != 1 {
		t.Fatalf("a line that was half written before: %v", got)
	}
	if err := os.Truncate(c.path, 0); err != nil {
		t.Fatal(err)
	}
	c.write(t, "web 127.0.0.1:1002 200\n")
	if got := c.take(); len(got) != 1 || got[0].GetEndpoint() != "web-2" {
		t.Fatalf("after the log was begun anew: %v", got)
	}
}

func FuzzTraffic(f *testing.F) {
	f.Add("web 127.0.0.1:1001, 127.0.0.1:1002 : 127.0.0.1:1001 502\n")
	f.Add("web\n\n  \n- - -")
	f.Fuzz(func(t *testing.T, text string) {
		c := counting(t)
		for range 3 {
			c.count(text)
		}
		for _, count := range c.take() {
			if count.GetErrors() > count.GetRequests() || count.GetRequests() < 1 {
				t.Fatalf("counted %v", count)
			}
		}
	})
}
