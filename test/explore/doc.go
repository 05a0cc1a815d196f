// Package explore visits every state that the real engine core can reach within
// small bounds: every order of messages, losses, commits and clients.
package explore
