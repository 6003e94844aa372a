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

	"github.com/mammoth-os/mammoth/companions/beside"
	"github.com/mammoth-os/mammoth/companions/zookeeper"
	"github.com/mammoth-os/mammoth/internal/testenv"
	"github.com/mammoth-os/mammoth/internal/zk"
	"github.com/mammoth-os/mammoth/internal/zk/zktest"
)

// All that `mammoth up --zookeeper … --nginx` runs: one instance is reached through nginx, found in ZooKeeper with its own
// client, and by dig; after a restart of the companions nginx is where it was.
func TestAllBeside(t *testing.T) {
	testenv.Need(t, "program:nginx", "program:dig")
	z, ctx := newZone(t), within(t)
	server := zktest.Start(t)
	dir := folder(t)
	config := beside.Config{Dir: dir, Zone: "local", ZooKeeper: server.Address, Nginx: true, DNS: "127.0.0.1:0", Log: z.log}
	all, err := beside.New(config, z.conn)
	end := z.runBalancer(all, err)
	t.Cleanup(func() {
		text, _ := os.ReadFile(filepath.Join(dir, "nginx", "nginx.pid"))
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	})
	web := z.newApp("web", onHost(host))
	first := web.start()
	web.confirmed(ctx)
	front := all.Front()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", front)
		},
	}}
	if word, err := get(client, "http://"+host+"/"); err != nil || !strings.HasPrefix(word, first.id) {
		t.Fatalf("through nginx %q answers, %v", word, err)
	}
	looker, err := zk.New(zk.Config{Servers: []string{server.Address}})
	if err != nil {
		t.Fatal(err)
	}
	defer looker.Close()
	for watch := looker.WatchChildren(zookeeper.DefaultPath + "/web"); ; {
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
	_, dnsPort, _ := net.SplitHostPort(all.DNS())
	out, err := exec.CommandContext(ctx, "dig", "@127.0.0.1", "-p", dnsPort, "+short", "web.service.mammoth", "SRV").CombinedOutput()
	if want := "0 100 " + port(first) + " " + first.id + ".web.instance.mammoth.\n"; err != nil || string(out) != want {
		t.Errorf("dig prints %q, %v; want %q", out, err, want)
	}

	end()
	if word, err := get(client, "http://"+host+"/"); err != nil || !strings.HasPrefix(word, first.id) {
		t.Errorf("without companions nginx answers %q, %v", word, err)
	}
	again, err := beside.New(config, z.conn)
	z.runBalancer(again, err)
	if again.Front() != front {
		t.Errorf("nginx was at %s, is at %s", front, again.Front())
	}
	second := web.start()
	web.take(ctx, first)
	if word, err := get(client, "http://"+host+"/"); err != nil || !strings.HasPrefix(word, second.id) {
		t.Errorf("after the restart nginx answers %q, %v", word, err)
	}
}
