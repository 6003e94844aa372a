package docker

import (
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// An engine whose own file of the output is damaged, as by a power cut, says so in the midst of the stream.
func TestOutputThatCannotBeReadDoesNotKeepAContainer(t *testing.T) {
	var removed atomic.Bool
	answer := func(text []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if removed.Load() {
				http.NotFound(w, r)
				return
			}
			_, _ = w.Write(text)
		}
	}
	engine := http.NewServeMux()
	engine.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.41") })
	engine.HandleFunc("GET /v1.41/containers/{name}/json", answer([]byte(`{"Id": "c0ffee", "State": {"Running": false}, "Config": {}}`)))
	engine.HandleFunc("GET /v1.41/containers/{name}/logs", answer(slices.Concat(
		frame(1, "2026-01-02T03:04:05Z before\n"), frame(3, "Error grabbing logs: invalid character"))))
	engine.HandleFunc("DELETE /v1.41/containers/c0ffee", func(http.ResponseWriter, *http.Request) { removed.Store(true) })
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: engine}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })

	r, err := New(Config{Socket: socket, Zone: "zone", Node: "node", LogDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	key := id.Container{Epoch: 1, App: id.App{ClusterStart: 1, Seq: 1}, Seq: 1}
	if err := r.Remove(t.Context(), key); err != nil {
		t.Error(err)
	}
	if !removed.Load() {
		t.Error("the container is still there")
	}
	var kept []string
	err = r.Logs(t.Context(), key, runtime.LogOptions{Tail: -1}, func(line runtime.LogLine) error {
		kept = append(kept, line.Text)
		return nil
	})
	if err != nil || !slices.Equal(kept, []string{"before"}) {
		t.Errorf("%q was kept, %v", kept, err)
	}
}
