package runtimetest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

func ports(w *World) {
	var group sync.WaitGroup
	var mu sync.Mutex
	seen := map[int]bool{}
	if err := w.Prepare(w.Context(), w.Spec("serve"), func(runtime.Progress) {}); err != nil {
		w.Fatal(err)
	}
	for range 8 {
		spec := w.Spec("serve")
		spec.Ports = []runtime.Port{{Name: "http", Container: 8080}, {Name: "admin", Container: 9090}}
		group.Go(func() {
			started, err := w.Start(w.Context(), spec)
			if err != nil || len(started.Ports) != 2 {
				w.Errorf("%+v, %v", started, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, port := range started.Ports {
				if port.Host == 0 || seen[port.Host] {
					w.Errorf("port %+v was given twice", port)
				}
				seen[port.Host] = true
			}
			if !w.Dial {
				return
			}
			w.AwaitLine(spec.ID, "serving")
			if got, err := fetch(started.Ports[0].Host); err != nil || !strings.HasSuffix(got, "ok\n") {
				w.Errorf("port %d answers %q, %v", started.Ports[0].Host, got, err)
			}
		})
	}
	group.Wait()
}

func fetch(port int) (string, error) {
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 5*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

func hostPorts(w *World) {
	spec := w.Spec("env")
	spec.Network = runtime.Host
	spec.Ports = []runtime.Port{{Name: "http"}, {Name: "peer-sync"}}
	if !w.HostNetwork {
		if _, err := w.Start(w.Context(), spec); !errors.Is(err, errdefs.ErrPermissionDenied) {
			w.Errorf("host network where it is not allowed: %v", err)
		}
		return
	}
	started := w.Run(spec)
	w.End(spec.ID)
	if len(started.Ports) != 2 || started.Ports[0].Host == 0 || started.Ports[0].Host == started.Ports[1].Host {
		w.Fatalf("leased %+v", started.Ports)
	}
	env := strings.Split(w.Output(spec.ID, runtime.LogOptions{Tail: -1}), "\n")
	for key, port := range map[string]int{"PORT": started.Ports[0].Host, "PORT_HTTP": started.Ports[0].Host, "PORT_PEER_SYNC": started.Ports[1].Host} {
		if want := fmt.Sprintf("%s=%d", key, port); !slices.Contains(env, want) {
			w.Errorf("%s is not in %q", want, env)
		}
	}
}

func memory(w *World) {
	spec := w.Spec("memory", "128")
	w.Run(spec)
	if exit := w.End(spec.ID); !exit.OOM || exit.Code != 137 {
		w.Errorf("128MiB of 64MiB ended as %+v", exit)
	}
	if found, ok := w.Find(spec.ID); !ok || found.Exit == nil || !found.Exit.OOM {
		w.Errorf("listed as %+v", found)
	}
	spec = w.Spec("memory", "32")
	w.Run(spec)
	w.AwaitLine(spec.ID, "allocated")
}

func memoryChild(w *World) {
	spec := w.Spec("memory-child", "128")
	w.Run(spec)
	if exit := w.End(spec.ID); !exit.OOM {
		w.Errorf("a child with 128MiB of 64MiB ended it as %+v", exit)
	}
}

func disk(w *World) { overfill(w, "disk") }

func diskDeleted(w *World) { overfill(w, "disk-deleted") }

// overfill writes twice the quota: that fails with ENOSPC, or ends the container.
func overfill(w *World, command string) {
	info, err := w.Info(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	spec := w.Spec(command, "128")
	spec.MemoryBytes = 256 << 20 // the page cache counts
	w.Run(spec)
	exit := w.End(spec.ID)
	switch info.DiskQuota {
	case "driver": // whose kernel may just have given up on quotas; then it is measured
		if exit.Code != 28 && !exit.DiskQuota {
			w.Errorf("128MiB of 64MiB ended as %+v, want ENOSPC or a verdict", exit)
		}
	case "watcher":
		if !exit.DiskQuota || !strings.HasPrefix(exit.Message, "disk quota exceeded (") || !strings.HasSuffix(exit.Message, " of 64MiB)") {
			w.Errorf("128MiB of 64MiB ended as %+v", exit)
		}
		if found, ok := w.Find(spec.ID); !ok || found.Exit == nil || *found.Exit != exit {
			w.Errorf("listed as %+v", found.Exit)
		}
	default:
		w.Errorf("nobody holds containers to their disk quota")
	}
	within := w.Spec("disk", "32")
	within.MemoryBytes = 256 << 20
	w.Run(within)
	w.AwaitLine(within.ID, "filled")
}

func pids(w *World) {
	spec := w.Spec("fork", "300")
	spec.Pids = 32
	w.Run(spec)
	var forked int
	err := w.Logs(w.Context(), spec.ID, runtime.LogOptions{Follow: true, Tail: -1}, func(line runtime.LogLine) error {
		if _, err := fmt.Sscanf(line.Text, "forked %d", &forked); err == nil {
			return io.EOF
		}
		return nil
	})
	if err != nil && err != io.EOF {
		w.Fatal(err)
	}
	// A fork bomb may also be ended by an error of its own at the limit. What counts is that the limit holds.
	if forked >= 32 {
		w.Errorf("%d processes with a quota of 32", forked)
	}
	if err := w.Stop(w.Context(), spec.ID, 0); err != nil {
		w.Fatal(err)
	}
}
