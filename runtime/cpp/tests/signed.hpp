// Sidecars for the tests: a JSON object as Python writes it, with the checksum that belongs to it.
#pragma once

#include <algorithm>
#include <string>

#include "json.hpp"
#include "sidecar.hpp"

inline std::string signed_sidecar(salstream::json::Value content) {
    using salstream::json::Value;
    auto &members = content.members;
    members.erase(std::remove_if(members.begin(), members.end(),
                                 [](const auto &member) { return member.first == "checksum"; }),
                  members.end());
    Value checksum;
    checksum.kind = Value::Kind::string;
    checksum.text = salstream::sha256(salstream::json::canonical(content));
    members.emplace_back("checksum", checksum);
    return salstream::json::written(content) + "\n";
}
