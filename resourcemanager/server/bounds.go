package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/mammoth-os/mammoth/internal/admission"
	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// These limit what callers may send and have open, in addition to package credentials. docs/design/limits.md lists them.
const (
	// largestTrusted is the size of a message from a trusted caller: the registration of a node with about ten thousand containers fits.
	largestTrusted = 16 << 20
	// bodyWithin is how long the body of a request may take.
	bodyWithin = 30 * time.Second
)

var mostConnections = admission.Limits{Total: 65536, Others: 4096, PerCaller: 1024}

// bounds counts what callers have open.
type bounds struct {
	// watches counts streams and look-ups that wait; calls counts other gRPC calls; requests counts requests over REST, and bodies
	// those with a body.
	watches, calls, requests, bodies *admission.Quota
	trusted                          func(peer.User) bool
	// waits has the full names of the methods that count as watches.
	waits map[string]bool
}

func newBounds(trusted func(peer.User) bool) *bounds {
	return &bounds{
		watches:  admission.NewQuota("watches", 1024, 8192),
		calls:    admission.NewQuota("calls", 512, 2048),
		requests: admission.NewQuota("requests", 1024, 8192),
		bodies:   admission.NewQuota("requests with a body", 64, 512),
		trusted:  trusted,
	}
}

// admit counts a call from its beginning to its end. gRPC calls it before it reserves anything for the call.
func (b *bounds) admit(ctx context.Context, call *tap.Info) (context.Context, error) {
	who := peer.From(ctx)
	if b.trusted(who) && !strings.HasPrefix(call.FullMethodName, "/mammoth.api.") {
		return ctx, nil // a node, a master, a companion
	}
	quota := b.calls
	if b.waits[call.FullMethodName] {
		quota = b.watches
	}
	caller := ""
	if remote, ok := grpcpeer.FromContext(ctx); ok {
		caller = admission.Caller(who, remote.Addr)
	}
	release, err := quota.Take(caller)
	if err != nil {
		return ctx, wire.Status(err)
	}
	context.AfterFunc(ctx, release)
	return ctx, nil
}

// learn finds the methods that count as watches. It must be called before the server serves.
func (b *bounds) learn(server *grpc.Server) {
	b.waits = map[string]bool{apiv1.Registry_GetService_FullMethodName: true}
	for name, service := range server.GetServiceInfo() {
		for _, method := range service.Methods {
			if method.IsServerStream || method.IsClientStream {
				b.waits["/"+name+"/"+method.Name] = true
			}
		}
	}
}

// admitRequests counts requests over REST from their beginning to their end.
func (b *bounds) admitRequests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		release, err := b.requests.Take(callerOf(r))
		if err != nil {
			refuse(w, http.StatusTooManyRequests, codes.ResourceExhausted, err)
			return
		}
		defer release()
		next.ServeHTTP(w, r)
	})
}

// smallBodies reads the whole body of a request before it is handled, and refuses one that is too large.
func (b *bounds) smallBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		release, err := b.bodies.Take(callerOf(r))
		if err != nil {
			refuse(w, http.StatusTooManyRequests, codes.ResourceExhausted, err)
			return
		}
		defer release()
		body, err := readBody(w, r)
		var large *http.MaxBytesError
		switch {
		case errors.As(err, &large):
			refuse(w, http.StatusRequestEntityTooLarge, codes.ResourceExhausted,
				fmt.Errorf("the body of %s %s has more than %d KiB, which is the limit", r.Method, r.URL.Path, large.Limit>>10))
			return
		case err != nil:
			refuse(w, http.StatusBadRequest, codes.InvalidArgument, fmt.Errorf("the body of %s %s did not arrive: %w", r.Method, r.URL.Path, err))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	// The server waits before it closes a connection only if its reader hit the limit. So an announced length is not refused
	// by itself: a client that is still sending would lose the answer.
	deadline := http.NewResponseController(w)
	_ = deadline.SetReadDeadline(time.Now().Add(bodyWithin)) // an httptest.ResponseRecorder has none
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, credentials.LargestRequest))
	_ = deadline.SetReadDeadline(time.Time{})
	return body, err
}

// callerOf is the caller of an HTTP request, as for admission.Quota.
func callerOf(r *http.Request) string {
	return admission.Caller(peer.From(r.Context()), remoteAddress(r.RemoteAddr))
}

// remoteAddress is an address as http.Request has it.
type remoteAddress string

// Network implements net.Addr.
func (remoteAddress) Network() string { return "tcp" }

// String implements net.Addr.
func (a remoteAddress) String() string { return string(a) }

// refuse answers with an error in the form of the services.
func refuse(w http.ResponseWriter, httpStatus int, code codes.Code, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(httpStatus)
	_ = json.NewEncoder(w).Encode(map[string]any{"code": code, "message": wire.Sentence(err)})
}
