// Package peer identifies the user of the program at the other end of a connection. No credential is needed and the answer
// cannot be forged: on loopback the kernel knows the socket's user. It has no rules: who may do what is decided elsewhere.
package peer

import (
	"context"
	"net"
	"os"
	"os/user"
	"strconv"
	"sync"
)

// User is who runs a program.
type User struct {
	// Name is the user's name, or its id if it has none. It is empty if the kernel does not know it: the program runs on
	// another machine, or in another network namespace.
	Name string
	// Operator is true for root and for the user of this process. Either could change its memory and files anyway.
	Operator bool
}

// String is the user in a sentence.
func (u User) String() string {
	if u.Name == "" {
		return "somebody who is not known to this machine"
	}
	return "user " + strconv.Quote(u.Name)
}

// Program is the program at the other end of a connection.
type Program interface {
	// User is the user of the program.
	User() User
}

// Of is the program at the other end of an accepted connection. It looks its user up once, when it is first needed.
func Of(connection net.Conn) Program {
	return program{sync.OnceValue(func() User { return find(connection) })}
}

type program struct{ user func() User }

// User implements Program.
func (p program) User() User { return p.user() }

func find(connection net.Conn) User {
	uid, known := owner(connection)
	if !known {
		return User{}
	}
	name := strconv.FormatUint(uint64(uid), 10)
	if entry, err := user.LookupId(name); err == nil {
		name = entry.Username
	}
	return User{Name: name, Operator: uid == 0 || int(uid) == os.Geteuid()}
}

type contextKey struct{}

// With is a context for requests of a program.
func With(ctx context.Context, from Program) context.Context {
	return context.WithValue(ctx, contextKey{}, from)
}

// Connected is a context for requests of a connection, for http.Server.ConnContext.
func Connected(ctx context.Context, connection net.Conn) context.Context {
	return With(ctx, Of(connection))
}
