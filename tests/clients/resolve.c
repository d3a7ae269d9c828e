/* Prints the addresses that the C library it is linked with finds for a name. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
	char text[INET6_ADDRSTRLEN];

	if (argc != 3)
		return 2;
	hints.ai_family = argv[1][0] == '6' ? AF_INET6 : AF_INET;
	if (getaddrinfo(argv[2], NULL, &hints, &found))
		return 1;
	for (; found; found = found->ai_next) {
		void *address = found->ai_family == AF_INET6
			? (void *)&((struct sockaddr_in6 *)found->ai_addr)->sin6_addr
			: (void *)&((struct sockaddr_in *)found->ai_addr)->sin_addr;
		puts(inet_ntop(found->ai_family, address, text, sizeof text));
	}
	return 0;
}
