package endpoints_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/mammoth-os/mammoth/companions/dns"
	"github.com/mammoth-os/mammoth/companions/nginx"
	"github.com/mammoth-os/mammoth/companions/zookeeper"
	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/internal/zk"
	"github.com/mammoth-os/mammoth/internal/zk/zktest"
)

// nginx, the copy in ZooKeeper and DNS follow one registry: an instance is reached through nginx, found in ZooKeeper with its
// own client, and by dig. nginx serves on without companions, and is taken over when they are back.
func TestCompanionsFollowOneRegistry(t *testing.T) {
	testenv.Need(t, "program:nginx", "program:dig")
	z, ctx := newZone(t), within(t)
	server := zktest.Start(t)
	dir, front := folder(t), freeAddress(t)
	start := func() (names string, end func()) {
		ends := []func(){
			z.runBalancer(nginx.New(nginx.Config{Dir: dir, Listen: front, Log: z.log}, z.conn)),
			z.run(zookeeper.New(zookeeper.Config{
				ZooKeeper: zk.Config{Servers: []string{server.Address}, Log: z.log}, Zone: "local", Log: z.log,
			}, z.conn)),
		}
		lookup, err := dns.New(dns.Config{Listen: "127.0.0.1:0", Log: z.log}, z.conn)
		ends = append(ends, z.run(lookup, err))
		return lookup.Addr(), func() {
			for _, end := range ends {
				end()
			}
		}
	}
	names, end := start()
	t.Cleanup(func() {
		text, _ := os.ReadFile(filepath.Join(dir, "nginx.pid"))
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	})
	web := z.newApp("web", onHost(host))
	first := web.start()
	web.confirmed(ctx)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", front)
		},
	}}
	if word, err := get(client, "http://"+host+"/"); err != nil || !strings.HasPrefix(word, first.id) {
		t.Fatalf("through nginx %q answers, %v", word, err)
	}
	for watch := server.WatchChildren(zookeeper.DefaultPath + "/web"); ; {
		names, err := watch.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(names) == 1 {
			break
		}
	}
	if out := server.Command("get", zookeeper.DefaultPath+"/web/"+first.id); !strings.Contains(out, `"managedBy":"mammoth/local"`) {
		t.Errorf("zkCli.sh prints %s", out)
	}
	_, dnsPort, _ := net.SplitHostPort(names)
	out, err := exec.CommandContext(ctx, "dig", "@127.0.0.1", "-p", dnsPort, "+short", "web.service.mammoth", "SRV").CombinedOutput()
	if want := "0 100 " + port(first) + " " + first.id + ".web.instance.mammoth.\n"; err != nil || string(out) != want {
		t.Errorf("dig prints %q, %v; want %q", out, err, want)
	}

	end()
	if word, err := get(client, "http://"+host+"/"); err != nil || !strings.HasPrefix(word, first.id) {
		t.Errorf("without companions nginx answers %q, %v", word, err)
	}
	start()
	second := web.start()
	web.take(ctx, first)
	if word, err := get(client, "http://"+host+"/"); err != nil || !strings.HasPrefix(word, second.id) {
		t.Errorf("after the restart nginx answers %q, %v", word, err)
	}
}
