package server

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/service"
)

// handler serves everything over HTTP/1.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", s.bounds.smallBodies(http.HandlerFunc(s.serveTerm)))
	mux.Handle("GET /metrics", s.config.Metrics)
	mux.HandleFunc("GET /v1/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		version := fmt.Sprintf(`"version": %q`, s.config.Version)
		_, _ = io.WriteString(w, strings.Replace(apiv1.OpenAPI, fmt.Sprintf(`"version": %q`, apiv1.OpenAPIVersion), version, 1))
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", s.serveReady)
	for _, pattern := range []string{"/v1/uploads", "/v1/uploads/", "/v2/"} {
		mux.Handle(pattern, s.config.Uploads)
	}
	return s.bounds.admitRequests(fromOwnPages(s.config.AllowInsecure, service.KnownParameters(mux)))
}

// serveTerm passes a request to the present term.
func (s *Server) serveTerm(w http.ResponseWriter, r *http.Request) {
	s.current().rest.ServeHTTP(w, r)
}

// serveReady answers whether the present term can be used.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	if err := s.current().ready(r.Context()); err != nil {
		http.Error(w, wire.Sentence(err), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}
